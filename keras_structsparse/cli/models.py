"""What the commands do: load, train and prune one model, and say what came out."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import typer

# Keras finds what a trained model holds only if it is imported; commands leave out __init__.
import keras_structsparse.regularizers
import keras_structsparse.training.optimizer.proximal  # noqa: F401
from keras_structsparse._files import write_text
from keras_structsparse.cli import console, tables
from keras_structsparse.errors import CostsError, ModelError, PlanError
from keras_structsparse.export import formats as exporting
from keras_structsparse.export.formats import load_model
from keras_structsparse.models import BASES, REFERENCES, REGISTRY, build, cards, find, is_spec, load
from keras_structsparse.profiling.architecture import architecture
from keras_structsparse.profiling.profile import Comparison, Profile, compare, profile
from keras_structsparse.surgery import Costs
from keras_structsparse.surgery import prune as rebuild
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.surgery.verification import verify

Source = Callable[[Sequence[int] | None, int | None], Any]
"""From input shape and number of classes, which only networks to be built mind, to a model."""


# --- models and plans ---


def save(model: keras.Model, path: Path) -> None:
    """Save a model and say so."""
    exporting.save_model(model, path)
    typer.echo(f"saved {path} ({path.stat().st_size:,} bytes)")


def source(name: str) -> Source:
    """A model in a file, loaded now, or one that can be built.

    Args:
        name: Path of a ``.keras`` file, a name of the zoo, that of a pruned network of the package,
            or a base such as "(64,5)x18".

    Returns:
        What gives the model.

    Raises:
        ModelError: There is no such file or name, or the file holds no model.
    """
    if name.endswith(exporting.SUFFIX) or os.sep in name or Path(name).is_file():
        loaded = load_model(Path(name))
        return lambda shape, classes: loaded
    if name in cards():
        packaged = load(name)
        return lambda shape, classes: packaged
    if is_spec(name):
        find(name)  # Its errors come now.
    elif name not in REGISTRY:
        known = [*REGISTRY, *cards()]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        raise ModelError(
            f"model: expected a {exporting.SUFFIX} file, a base such as (64,5)x18, or one of "
            f"{', '.join(near or known)}. Received: {name!r}"
        )
    return lambda shape, classes: _built(name, shape, classes)


def _built(name: str, shape: Sequence[int] | None, classes: int | None) -> keras.Model:
    if shape is None:
        return build(name, None, classes)
    if len(shape) != 3:
        raise ModelError(
            f"model '{name}': expected an input shape (height, width, channels). Received: {shape}"
        )
    height, width, channels = shape
    return build(name, (height, width, channels), classes)


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


def list_zoo(references: bool) -> None:
    """Print what the base architectures, or the reference networks, are and cost."""
    entries = REFERENCES if references else BASES
    found = {name: architecture(build(name)) for name in entries}
    out = console.console()
    if not references:
        notes = {name: entry.summary for name, entry in entries.items()}
        return out.print(tables.zoo_table(found, "summary", notes))
    published = {name: entry.published for name, entry in entries.items() if entry.published}
    errors = {name: quoted.errors for name, quoted in published.items()}
    out.print(tables.zoo_table(found, "published error", errors))
    for name, quoted in published.items():
        out.print(f"{name}: {quoted.source}", markup=False)


def list_pruned() -> None:
    """Print what the pruned networks that come with the package can do, and cost."""
    console.console().print(tables.card_table(cards()))


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


# --- surgery ---


def prune(
    model: keras.Model,
    plan: Plan,
    constants: str,
    realize: str,
    verified: bool | None,
    costs: Costs | None = None,
    round_to: int = 1,
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
        round_to: As for :func:`keras_structsparse.prune`.

    Returns:
        The pruned model.

    Raises:
        ModelError: The outputs differ from those of the masked model.
    """
    if verified is None and constants != "exact":
        typer.echo(f"not verified: --constants {constants} may change the outputs")
    elif verified is not False:
        result = verify(model, plan, constants, realize, costs=costs, round_to=round_to)
        if not result.passed:
            raise ModelError(f"{result}. Nothing is written; --no-verify goes on all the same")
        typer.echo(str(result))
    pruned = rebuild(model, plan, constants, realize=realize, costs=costs, round_to=round_to)
    typer.echo(str(compare(model, pruned)))
    return pruned
