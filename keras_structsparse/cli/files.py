"""Models, plans and costs that commands read from files, build by name, and save.

This module imports Keras; commands import it when they run.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import keras
import numpy as np
import typer

# Keras finds what a trained model holds only if it is imported; commands leave out __init__.
import keras_structsparse.regularizers
import keras_structsparse.training.optimizer.proximal  # noqa: F401
from keras_structsparse._files import read_bytes, write_text
from keras_structsparse._typing import Array
from keras_structsparse.errors import CostsError, ModelError, PlanError
from keras_structsparse.export import formats
from keras_structsparse.graph.model_files.contents import SUFFIXES
from keras_structsparse.graph.model_files.loading import load_model as load_model
from keras_structsparse.graph.scope_names import check_names
from keras_structsparse.models import REGISTRY, build, cards, find, is_spec, load
from keras_structsparse.surgery import Costs
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.training.classifier import check_images as check_images
from keras_structsparse.training.classifier import classifier as fitting
from keras_structsparse.training.training_data import Data

T = TypeVar("T")

Source = Callable[[Sequence[int] | None, int | None], Any]
"""From an input shape and a number of classes, which only networks to be built need, to a model."""


def save(model: keras.Model, path: Path) -> None:
    """Save a model and say so."""
    formats.save_model(model, path)
    typer.echo(f"saved {path} ({path.stat().st_size:,} bytes)")


def load_compiled(path: Path) -> keras.Model:
    """A model with its loss and metrics, where its file has them and they can be restored.

    Raises:
        ModelError: The file holds no model.
    """
    try:
        return load_model(path, compile=True)
    except ModelError:
        return load_model(path)


def source(name: str) -> Source:
    """A model in a file, loaded now, or one that can be built.

    Args:
        name: Path of a ``.keras`` or ``.h5`` file, a name of the zoo, that of a pruned network of
            the package, or a base such as "(64,5)x18".

    Returns:
        What gives the model.

    Raises:
        ModelError: There is no such file or name, or the file holds no model.
    """
    if name.endswith(SUFFIXES) or os.sep in name or _is_file(name):
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
            f"model: expected a .keras or .h5 file, a base such as (64,5)x18, or one of "
            f"{', '.join(near or known)}. Received: {name!r}"
        )
    return lambda shape, classes: _built(name, shape, classes)


def _is_file(name: str) -> bool:
    return Path(name).is_file() or Path(name).is_symlink()


def classifier(
    source: Source, images: Array, classes: int, name: str, data: str, seed: int
) -> keras.Model:
    """A network without penalties that fits a data set, its new weights drawn by a seed.

    Args:
        source: Gives the network.
        images: Some images.
        classes: Number of classes.
        name: What the user calls the network.
        data: What the user calls the data set.
        seed: Seed of new weights and of the training.

    Raises:
        ModelError: The network does not fit the data.
    """
    keras.utils.set_random_seed(seed)
    model = source(tuple(images.shape[1:]), classes)
    check_names(model, name)
    return fitting(model, images, classes, name, data)


def some_images(data: Data) -> Array:
    """Two images of a data set.

    Args:
        data: Arrays of images and labels, or a stream of batches.
    """
    images, _ = data if isinstance(data, tuple) else next(iter(data))
    return np.asarray(images[:2])


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
    return _read(path, Plan.from_json, "--plan: expected a plan in JSON", PlanError)


def read_costs(path: Path) -> Costs:
    """Read what calibration measured.

    Raises:
        CostsError: The file cannot be read or holds no costs.
    """
    return _read(path, Costs.from_json, "--costs: expected costs in JSON", CostsError)


def _read(path: Path, parse: Callable[[str], T], expected: str, error: type[Exception]) -> T:
    """What a file holds; all errors name the file."""
    try:
        return parse(read_bytes(path).decode("utf-8"))
    except (OSError, UnicodeDecodeError, error) as reason:
        raise error(f"{expected}. Received: {path} ({reason})") from reason


def save_plan(plan: Plan, path: Path) -> None:
    """Save a plan and say so."""
    write_text(path, plan.to_json())
    typer.echo(f"saved {path}")
