"""What the commands do: load, train and prune one model, and say what came out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import typer

from keras_structsparse import console, graph, listings, training
from keras_structsparse import export as exporting
from keras_structsparse._files import write_text
from keras_structsparse.architectures import architecture
from keras_structsparse.attachment import regularizers_of
from keras_structsparse.budget import TargetMultiplyAdds
from keras_structsparse.copying import copy_model
from keras_structsparse.datasets import Dataset
from keras_structsparse.errors import CostsError, ModelError, PlanError
from keras_structsparse.export import load_model
from keras_structsparse.forms import Form
from keras_structsparse.models import BASES, REFERENCES, REGISTRY, build, find, is_spec
from keras_structsparse.plans import Plan
from keras_structsparse.plans import plan as read_off
from keras_structsparse.profiles import Comparison, Profile, compare, profile
from keras_structsparse.surgery import Costs
from keras_structsparse.surgery import prune as rebuild
from keras_structsparse.verification import verify

Source = Callable[[Sequence[int] | None, int | None], Any]
"""From input shape and number of classes, which only the zoo minds, to a model."""


# --- models and plans ---


def save(model: keras.Model, path: Path) -> None:
    """Save a model and say so."""
    exporting.save_model(model, path)
    typer.echo(f"saved {path} ({path.stat().st_size:,} bytes)")


def source(name: str) -> Source:
    """A model in a file, loaded now, or one that can be built.

    Args:
        name: Path of a ``.keras`` file, a name of the zoo, or a base such as "(64,5)x18".

    Returns:
        What gives the model.

    Raises:
        ModelError: There is no such file or name, or the file holds no model.
    """
    if name.endswith(exporting.SUFFIX) or os.sep in name or Path(name).is_file():
        loaded = load_model(Path(name))
        return lambda shape, classes: loaded
    if is_spec(name):
        find(name)  # Its errors come now.
    elif name not in REGISTRY:
        raise ModelError(
            f"model: expected a {exporting.SUFFIX} file, a base such as (64,5)x18, or one of "
            f"{', '.join(REGISTRY)}. Received: {name!r}"
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
        return out.print(listings.zoo_table(found, "summary", notes))
    published = {name: entry.published for name, entry in entries.items() if entry.published}
    errors = {name: quoted.errors for name, quoted in published.items()}
    out.print(listings.zoo_table(found, "published error", errors))
    for name, quoted in published.items():
        out.print(f"{name}: {quoted.source}", markup=False)


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


# --- training ---


def classifier(source: Source, data: Dataset, name: str, seed: int) -> keras.Model:
    """A model without penalties that fits a data set.

    Args:
        source: Gives the model.
        data: The data set.
        name: What the user knows the model as.
        seed: Seed of new weights and of the training.

    Returns:
        The model, uncompiled.

    Raises:
        ModelError: The model does not take the images or does not give class probabilities.
    """
    keras.utils.set_random_seed(seed)
    # A copy: it leaves behind the regularizers that the model came with.
    model = copy_model(source(data.shape, data.classes))
    _check_fit(model, data, name)
    return model


def _check_fit(model: keras.Model, data: Dataset, name: str) -> None:
    inputs, outputs = ([tuple(t.shape[1:]) for t in side] for side in (model.inputs, model.outputs))
    if len(inputs) != 1 or not _takes(inputs[0], data.shape):
        raise ModelError(
            f"{name}: expected an input of shape {data.shape}, the images of data set "
            f"'{data.name}'. Received a model with {_listed('input', inputs)}"
        )
    if outputs != [(data.classes,)]:
        raise ModelError(
            f"{name}: expected an output of shape ({data.classes},), the classes of data set "
            f"'{data.name}'. Received a model with {_listed('output', outputs)}"
        )
    answers = keras.ops.convert_to_numpy(keras.tree.flatten(model(data.train.x[:2]))[0])
    if answers.min() < 0 or not np.allclose(answers.sum(axis=-1), 1.0, atol=1e-2):
        raise ModelError(
            f"{name}: expected class probabilities, as a softmax gives them. Received outputs "
            f"from {answers.min():.3g} to {answers.max():.3g}"
        )


def _takes(shape: tuple[int | None, ...], image: tuple[int, ...]) -> bool:
    return len(shape) == len(image) and all(
        side in (None, given) for side, given in zip(shape, image, strict=True)
    )


def _listed(what: str, shapes: Sequence[tuple[int | None, ...]]) -> str:
    return f"{what}s of shapes {shapes}" if len(shapes) > 1 else f"{what} of shape {shapes[0]}"


def fit(
    model: keras.Model,
    data: Dataset,
    recipe: training.Recipe,
    form: Form,
    alpha: float,
    budget: TargetMultiplyAdds | None = None,
) -> None:
    """Compile and train a model, with a line for each epoch; say what a budget came to."""
    examples = len(data.train)
    penalty = form.regularizer(alpha)
    training.compile_for(model, recipe, examples, penalty, form.weights, form.coupled)
    with console.epoch_progress(recipe.epochs, -(-examples // recipe.batch_size)) as progress:
        validation = (data.validation.x, data.validation.y)
        callbacks = [progress] if budget is None else [budget, progress]
        training.fit(model, (data.train.x, data.train.y), recipe, validation, callbacks)
    if budget is not None:
        typer.echo(f"multiply-adds: {budget.target:.1%} wanted, {budget.reached:.1%} reached")


def report(model: keras.Model, data: Dataset, tau: float, groups: str) -> None:
    """Print what a training came to.

    Args:
        model: The model.
        data: The data set.
        tau: Threshold for the sizes of the kernels.
        groups: The groups that the sizes are counted in.

    Raises:
        ModelError: A weight is not finite.
    """
    plan = read_off(model, tau, groups)
    for name, split in (("validation", data.validation), ("test", data.test)):
        typer.echo(f"{name} accuracy {training.accuracy(model, (split.x, split.y)):.4f}")
    if regularizers_of(model):
        typer.echo(f"penalty {sum(map(float, model.losses)):.6g}")
    console.console().print(console.plan_table(plan, f"kernels with a norm above {tau:g}"))


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
    typer.echo(str(compare(model, pruned, notes=graph.notes(pruned))))
    return pruned
