"""Profiles and comparisons of networks as values, tables and JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from keras_structsparse._typing import Shape
from keras_structsparse.graph.left_out import described

Pair = tuple[int, int]
"""A number before and after surgery."""


@dataclass(frozen=True)
class LayerProfile:
    """The multiply-adds and parameters of one layer, or of a bare operation that is not counted.

    Attributes:
        name: Name of the layer; names of nested models around it come first, joined by "/".
        kind: Its type.
        kernels: Number of kernels, which is that of its output channels; 0 for layers without any.
        size: Sides of a kernel, in positions; empty for a dense layer.
        output_shape: Shape of its (first) output, without the batch axis.
        multiply_adds: Multiply-adds for one example, of all calls of the layer together.
        params: Number of weights, trainable or not, except those of layers before it.
        counted: Whether the multiply-adds of this type of layer are known; otherwise they are 0.
    """

    name: str
    kind: str
    kernels: int
    size: tuple[int, ...]
    output_shape: Shape
    multiply_adds: int
    params: int
    counted: bool = True


@dataclass(frozen=True)
class Profile:
    """The multiply-adds and parameters of a network. ``str()`` gives a table.

    Attributes:
        layers: The layers with kernels or parameters, in topological order.
    """

    layers: tuple[LayerProfile, ...]

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for one example (eq. 10)."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def params(self) -> int:
        """Number of weights, trainable or not; shared ones count once."""
        return sum(layer.params for layer in self.layers)

    @property
    def not_counted(self) -> tuple[str, ...]:
        """The layers and bare operations whose multiply-adds are missing in the total."""
        return tuple(f"{layer.name} ({layer.kind})" for layer in self.layers if not layer.counted)

    def to_json(self) -> str:
        """The profile as JSON text, with the format "keras_structsparse.profile/1"."""
        content = {
            "format": "keras_structsparse.profile/1",
            "multiply_adds": self.multiply_adds,
            "params": self.params,
            "layers": [asdict(layer) for layer in self.layers],
        }
        return json.dumps(content, indent=2) + "\n"

    def __str__(self) -> str:
        shown = [x for x in self.layers if x.kernels or not x.counted]
        others = [x for x in self.layers if not x.kernels and x.counted]
        rows = [["layer", "type", "kernels", "size", "output", "multiply-adds", "params"]]
        for x in shown:
            work = f"{x.multiply_adds:,}" if x.counted else "unknown"
            sides = (_sides(x.size), _sides(x.output_shape))
            rows.append([x.name, x.kind, str(x.kernels or "-"), *sides, work, f"{x.params:,}"])
        if others:
            params = sum(x.params for x in others)
            rows.append([f"{len(others)} other", *[""] * 4, "0", f"{params:,}"])
        rows.append(["total", *[""] * 4, f"{self.multiply_adds:,}", f"{self.params:,}"])
        return _table(rows)


@dataclass(frozen=True)
class LayerComparison:
    """One layer before and after; every pair is (before, after).

    Attributes:
        name: Name of the layer before, or after if only the pruned network has it.
        kind: Its type.
        kernels: Number of kernels; 0 if the network does not have the layer.
        size: Sides of its kernels; empty for dense layers and for a layer that does not exist.
        multiply_adds: Multiply-adds for one example.
        params: Number of weights.
        parts: For a layer that was split, the sides of the kernels of each convolution, the largest
            first (as in ``size``); otherwise empty.
    """

    name: str
    kind: str
    kernels: Pair
    size: tuple[tuple[int, ...], tuple[int, ...]]
    multiply_adds: Pair
    params: Pair
    parts: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A network before and after surgery. ``str()`` gives a table.

    Attributes:
        layers: The layers of the original network in topological order, then those that only the
            pruned network has, so the columns add up to the totals.
        notes: The layers that surgery kept unchanged, with the reasons.
        left_out: The layers with kernels that no plan can have, by reason.
        not_counted: The layers and bare operations of the original network whose multiply-adds are
            missing in the totals.
    """

    layers: tuple[LayerComparison, ...]
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    not_counted: tuple[str, ...] = ()

    @property
    def multiply_adds(self) -> Pair:
        """Multiply-adds for one example (eq. 10), before and after."""
        return _sums([layer.multiply_adds for layer in self.layers])

    @property
    def params(self) -> Pair:
        """Number of weights, before and after."""
        return _sums([layer.params for layer in self.layers])

    @property
    def multiply_adds_fraction(self) -> float:
        """The remaining fraction of the multiply-adds."""
        return _fraction(self.multiply_adds)

    @property
    def params_fraction(self) -> float:
        """The remaining fraction of the weights."""
        return _fraction(self.params)

    @property
    def removed(self) -> tuple[str, ...]:
        """Names of the layers with kernels that were removed."""
        return tuple(x.name for x in self.layers if x.kernels[0] and not x.kernels[1])

    def to_json(self) -> str:
        """The comparison as JSON text; every pair is a list [before, after]."""
        content = {
            "format": "keras_structsparse.comparison/1",
            "multiply_adds": self.multiply_adds,
            "multiply_adds_fraction": self.multiply_adds_fraction,
            "params": self.params,
            "params_fraction": self.params_fraction,
            "removed": self.removed,
            "notes": self.notes,
            "left_out": dict(self.left_out),
            "not_counted": self.not_counted,
            "layers": [asdict(layer) for layer in self.layers],
        }
        return json.dumps(content, indent=2) + "\n"

    def __str__(self) -> str:
        shown = [layer for layer in self.layers if any(layer.kernels)]
        others = [layer for layer in self.layers if not any(layer.kernels)]
        rows = [_HEADER] + [
            [x.name, x.kind, *_texts(x.kernels), *_sizes(x), *_costs([x])] for x in shown
        ]
        if others:
            rows.append([f"{len(others)} other", *[""] * 5, *_costs(others)])
        rows.append(["total", *[""] * 5, *_costs(self.layers)])
        removed = [f"removed: {', '.join(self.removed)}"] if self.removed else []
        outside = f"not planned: {described(self.left_out)}"
        missing = {"whose multiply-adds are not counted": self.not_counted}
        said = [*removed, *([outside] if self.left_out else [])]
        said += [described(missing)] if self.not_counted else []
        return "\n".join([_table(rows), *said, *(f"note: {note}" for note in _joined(self.notes))])


_OF_LAYER = re.compile(r"layer '(?P<name>.+?)' \((?P<kind>\w+)\): (?P<reason>.+)")
_ALONE = 3


def _joined(notes: Sequence[str]) -> list[str]:
    """Notes with one sentence for all layers of a type that have the same reason, if many do."""
    found: dict[tuple[str, str] | str, list[str]] = {}
    for note in notes:
        match = _OF_LAYER.fullmatch(note)
        key = (match["kind"], match["reason"]) if match else note
        found.setdefault(key, []).append(match["name"] if match else note)
    texts = []
    for key, names in found.items():
        if isinstance(key, str):
            texts.append(key)
        elif len(names) <= _ALONE:
            texts += [f"layer '{name}' ({key[0]}): {key[1]}" for name in names]
        else:
            texts.append(f"{len(names)} layers ({key[0]}), '{names[0]}' to '{names[-1]}': {key[1]}")
    return texts


# --- tables ---

_HEADER = ["layer", "type", "kernels", "left", "size", "left"]
_HEADER += ["multiply-adds", "left", "", "params", "left", ""]


def _costs(rows: Sequence[LayerComparison]) -> list[str]:
    work, weights = _sums([x.multiply_adds for x in rows]), _sums([x.params for x in rows])
    return [*_texts(work), _percent(work), *_texts(weights), _percent(weights)]


def _sums(pairs: Sequence[Pair]) -> Pair:
    return sum(before for before, _ in pairs), sum(after for _, after in pairs)


def _fraction(pair: Pair) -> float:
    return pair[1] / pair[0] if pair[0] else 1.0


def _percent(pair: Pair) -> str:
    return f"{pair[1] / pair[0]:.1%}" if pair[0] else "-"


def _texts(pair: Pair) -> list[str]:
    return [f"{number:,}" for number in pair]


def _sides(shape: Sequence[int | None]) -> str:
    return "x".join("?" if side is None else str(side) for side in shape) or "-"


def _sizes(row: LayerComparison) -> tuple[str, str]:
    before, after = row.size
    return _sides(before), ", ".join(map(_sides, row.parts or (after,)))


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Align columns of text in ASCII: the first two to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
