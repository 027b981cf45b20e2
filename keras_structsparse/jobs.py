"""What the commands do: load, train, prune and export one model, and say what came out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import typer

from keras_structsparse import console, graph
from keras_structsparse import export as exporting
from keras_structsparse._files import write_atomically, write_text
from keras_structsparse.errors import CostsError, ModelError, PlanError
from keras_structsparse.export import load_model
from keras_structsparse.models import REGISTRY, build
from keras_structsparse.plans import Plan
from keras_structsparse.profiles import Comparison, Profile, compare, profile
from keras_structsparse.surgery import Costs
from keras_structsparse.surgery import prune as rebuild
from keras_structsparse.verification import random_inputs, verify

Source = Callable[[Sequence[int] | None, int | None], Any]
"""From input shape and number of classes, which only the zoo minds, to a model."""

PORTABLE = 1e-2
"""Largest relative difference of an export that is taken for rounding, in half precision too."""


# --- models and plans ---


def save(model: keras.Model, path: Path) -> None:
    """Save a model and say so."""
    exporting.save_model(model, path)
    typer.echo(f"saved {path} ({path.stat().st_size:,} bytes)")


def source(name: str) -> Source:
    """A model in a file, loaded now, or one that can be built.

    Args:
        name: Path of a ``.keras`` file, or a name of the zoo.

    Returns:
        What gives the model.

    Raises:
        ModelError: There is no such file or name, or the file holds no model.
    """
    if name.endswith(exporting.SUFFIX) or os.sep in name or Path(name).is_file():
        loaded = load_model(Path(name))
        return lambda shape, classes: loaded
    if name not in REGISTRY:
        raise ModelError(
            f"model: expected a {exporting.SUFFIX} file or one of {', '.join(REGISTRY)}. "
            f"Received: {name!r}"
        )
    return lambda shape, classes: _built(name, shape, classes)


def _built(name: str, shape: Sequence[int] | None, classes: int | None) -> keras.Model:
    if shape is not None and len(shape) != 3:
        raise ModelError(
            f"model '{name}': expected an input shape (height, width, channels). Received: {shape}"
        )
    return build(name, shape, classes)


def read_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        PlanError: The file cannot be read or holds no plan.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"--plan: expected a plan in JSON. Received: {path} ({error})") from error
    return Plan.from_json(text)


def read_costs(path: Path) -> Costs:
    """Read what calibration measured.

    Raises:
        CostsError: The file cannot be read or holds no costs.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CostsError(f"--costs: expected costs in JSON. Received: {path} ({error})") from error
    return Costs.from_json(text)


def save_plan(plan: Plan, path: Path) -> None:
    """Save a plan and say so."""
    write_text(path, plan.to_json())
    typer.echo(f"saved {path}")


def list_zoo() -> None:
    """Print the networks of the zoo with what they cost."""
    costs = {name: profile(build(name)) for name in REGISTRY}
    summaries = {name: entry.summary for name, entry in REGISTRY.items()}
    console.console().print(console.zoo_table(summaries, costs))


def costs(names: Sequence[str], shape: Sequence[int] | None) -> Profile | Comparison:
    """What one model costs, or two set side by side.

    Args:
        names: One or two models, as for :func:`source`.
        shape: Shape of one input where the models leave it open.

    Returns:
        The profile of one model, the comparison of two.
    """
    models = [get(shape, None) for get in [source(name) for name in names]]
    if len(models) == 1:
        return profile(models[0], shape)
    return compare(models[0], models[1], input_shape=shape)


def draw(found: Profile | Comparison, path: Path) -> None:
    """Draw a comparison.

    Raises:
        OutputError: The path cannot be written, or ends in neither .png nor .svg.
    """
    from keras_structsparse.plots import comparison_figure, save

    assert isinstance(found, Comparison), "the command asks for a second model"
    save(comparison_figure(found), path)


# --- surgery and export ---


def prune(
    model: keras.Model,
    plan: Plan,
    constants: str,
    realize: str,
    verified: bool | None,
    costs: Costs | None = None,
) -> keras.Model:
    """Prune a model and print what was saved.

    Args:
        model: The model.
        plan: The plan.
        constants: As for :func:`keras_structsparse.prune`.
        realize: As for :func:`keras_structsparse.prune`.
        verified: Whether to compare with the masked model first; None: where the result is to be
            exact.
        costs: As for :func:`keras_structsparse.prune`.

    Returns:
        The pruned model.

    Raises:
        ModelError: The outputs differ from those of the masked model.
    """
    if verified is None and constants != "exact":
        typer.echo(f"not verified: --constants {constants} may change the outputs")
    elif verified is not False:
        result = verify(model, plan, constants, realize, costs=costs)
        if not result.passed:
            raise ModelError(f"{result}. Nothing is written; --no-verify goes on all the same")
        typer.echo(str(result))
    pruned = rebuild(model, plan, constants, realize=realize, costs=costs)
    typer.echo(str(compare(model, pruned, notes=graph.notes(pruned))))
    return pruned


def export(model: keras.Model, path: Path, format: str) -> None:
    """Export a model, run the export in another process, and only then put it in place.

    Raises:
        ModelError: The export does not run by itself or computes something else.
    """
    found: list[float] = []
    write_atomically(path, lambda target: found.append(_exported(model, target, format)))
    typer.echo(f"relative difference, run without this package: {found[0]:.1e}")
    typer.echo(f"saved {path} ({console.size_of(path):,} bytes)")


def _exported(model: keras.Model, path: Path, format: str) -> float:
    exporting.export(model, path, format)
    inputs = keras.tree.pack_sequence_as(graph.input_structure(model), _images(model))
    difference = exporting.check_portable(model, [path], inputs)[path]
    if not difference <= PORTABLE:
        raise ModelError(
            f"export: expected outputs that differ from the model's by at most {PORTABLE:g}. "
            f"Received a relative difference of {difference:.1e}; nothing is written"
        )
    return difference


def _images(model: keras.Model) -> list[Any]:
    """Random inputs in [0, 1], as images are: larger ones would saturate a softmax."""
    arrays = random_inputs(model, samples=16, seed=0)
    return [
        np.clip(array / 4 + 0.5, 0, 1).astype(keras.backend.standardize_dtype(tensor.dtype))
        for array, tensor in zip(arrays, model.inputs, strict=True)
    ]
