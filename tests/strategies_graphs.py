"""Random small networks over all layers that surgery may meet, as code that one can paste.

A network is a list of lines of Python, ``x3 = L.Conv2D(4, (3, 2))(x1)``; building it runs them.
The layers come from the table ``FAMILIES`` in families_graphs.py, which everybody can extend.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import families_graphs
import helpers_models
import keras
from hypothesis import strategies as st
from keras import layers as L
from keras import ops

Draw = Callable[[st.SearchStrategy[Any]], Any]
Shape = tuple[int, ...]
FAMILIES = families_graphs.FAMILIES

HEADER = """\
import keras
from keras import layers as L, ops
from helpers_models import *

use_float64()
"""
LARGEST = 600
"""No tensor has more entries: thousands of networks have to run."""


@dataclass(frozen=True, repr=False)
class Case:
    """A network, a plan for it and how to prune it.

    Attributes:
        lines: The code that makes ``model``.
        seed: Seed of weights, plan and inputs.
        realize: As for ``prune``.
        round_to: Likewise.
    """

    lines: tuple[str, ...]
    seed: int
    realize: str
    round_to: int

    def build(self) -> keras.Model:
        """Run the lines; the names of layers are the same every time."""
        keras.utils.clear_session(free_memory=False)
        space: dict[str, Any] = {"keras": keras, "L": L, "ops": ops}
        exec("\n".join(self.lines), space)
        return helpers_models.randomize(space["model"], self.seed)

    def opened(self) -> Case:
        """The network with inputs of which some sizes are not known; nested models too."""
        rng = random.Random(self.seed)

        def open_sizes(found: re.Match[str]) -> str:
            sizes = [size for size in found[1].split(", ") if size]
            chance = rng.choice([0.0, 0.5, 1.0])
            kept = ["None" if rng.random() < chance else size for size in sizes[:-1]]
            return f"keras.Input(({', '.join([*kept, sizes[-1]])}"

        lines = [re.sub(r"keras\.Input\(\(([^)]*)", open_sizes, line) for line in self.lines]
        return replace(self, lines=tuple(lines))

    def __repr__(self) -> str:
        check = f"assert_exact_surgery(model, random_plan(model, {self.seed}), {self.seed}, "
        return "\n".join(
            [
                "",
                HEADER + "\n".join(self.lines),
                f"randomize(model, {self.seed})",
                check + f"realize={self.realize!r}, round_to={self.round_to})",
                "",
            ]
        )

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What hypothesis prints of a failing case."""
        printer.text(repr(self))


class Sketch:
    """The lines so far, and the tensors that the next line can read."""

    def __init__(self, draw: Draw, rank: int) -> None:
        self.draw, self.rank = draw, rank
        self.lines: list[str] = []
        self.space: dict[str, Any] = {"keras": keras, "L": L, "ops": ops}
        self.shapes: dict[str, Shape] = {}

    def add(self, expression: str, prefix: str = "x") -> str:
        """Run one more line; empty for a tensor that is too large, or that Keras refuses."""
        name = f"{prefix}{len(self.lines)}"
        state = random.getstate()  # hypothesis minds that Keras draws seeds for its initializers
        try:
            value = eval(expression, self.space)
        except ValueError:  # a window larger than the map
            return ""
        finally:
            random.setstate(state)
        if prefix == "x":
            shape = tuple(value.shape[1:])
            if not 0 < math.prod(shape) <= LARGEST:
                return ""
            self.shapes[name] = shape
        self.space[name] = value
        self.lines.append(f"{name} = {expression}")
        return name

    def maps(self) -> list[str]:
        """The tensors that have positions and channels."""
        return [name for name, shape in self.shapes.items() if len(shape) == self.rank + 1]

    def map(self) -> str:
        """One of them; rather a late one, so that networks get deep."""
        names = self.maps()
        return str(self.draw(st.sampled_from(names[-3:] + names[-1:] * 2)))

    def one_of(self, *choices: Any) -> Any:
        """Draw one of some values."""
        return self.draw(st.sampled_from(choices))

    def several(self, low: int, high: int) -> tuple[int, ...]:
        """A whole number for each spatial axis."""
        return tuple(self.draw(st.integers(low, high)) for _ in range(self.rank))

    def alike(self, name: str) -> list[str]:
        """The tensors that can be added to a given one."""
        return [other for other, shape in self.shapes.items() if shape == self.shapes[name]]

    def channels(self, name: str) -> int:
        """Number of channels."""
        return self.shapes[name][-1]


def _head(sketch: Sketch, name: str) -> str:
    pool = f"Global{sketch.one_of('Average', 'Max')}Pooling{sketch.rank}D"
    form = sketch.one_of("L.Dense(2)(L.Flatten()({}))", f"L.Dense(2)(L.{pool}()({{}}))", "{}")
    return str(form.format(name))


@st.composite
def cases(draw: Draw, families: Sequence[str] = tuple(FAMILIES), depth: int = 8) -> Case:
    """Networks of one or two inputs and outputs over some families of layers."""
    sketch = Sketch(draw, draw(st.sampled_from([2, 2, 2, 2, 1, 3])))
    shape = (*sketch.several(3, 8 if sketch.rank < 3 else 4), sketch.one_of(2, 3))
    inputs = [sketch.add(f"keras.Input({shape})") for _ in range(sketch.one_of(1, 1, 1, 2))]
    sketch.add(f"L.Conv{sketch.rank}D(4, {sketch.several(1, 4)}, padding='same')({inputs[0]})")
    for family in draw(st.lists(st.sampled_from(families), min_size=2, max_size=depth)):
        sketch.add(FAMILIES[family](sketch))
    last = [name for name in sketch.maps() if name not in inputs][-sketch.one_of(1, 1, 2) :]
    heads = [sketch.add(_head(sketch, name)) for name in last]
    outputs = ", ".join(head or name for head, name in zip(heads, last, strict=True))
    given = inputs[0] if len(inputs) == 1 else f"[{', '.join(inputs)}]"
    sketch.lines.append(f"model = keras.Model({given}, [{outputs}])")
    realize = sketch.one_of("auto", "crop", "split", "none")
    seed, round_to = draw(st.integers(0, 10**6)), sketch.one_of(1, 1, 2, 3)
    return Case(tuple(sketch.lines), seed, realize, round_to)
