"""The weights of Keras 2 for a model of Keras 3."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from keras_structsparse import _keras_compat
from keras_structsparse.errors import ModelError
from keras_structsparse.graph.model_files.contents import WEIGHTS, Contents

_STEEPER = 1.2
"""Keras 2 has hard_sigmoid(x) = clip(x / 5 + 1 / 2, 0, 1), Keras 3 clip(x / 6 + 1 / 2, 0, 1)."""

_GATES = {4: (0, 1, 3), 3: (0, 1)}
"""The gates among the blocks of columns of a recurrent kernel: input, forget and output of an LSTM,
update and reset of a GRU."""


def load(contents: Contents, model: keras.Model) -> None:
    """Give a model the weights of a file of Keras 2.

    Args:
        contents: The file.
        model: The model of its translated configuration.

    Raises:
        ModelError: Weights are missing or left over, or an activation is another function in
            Keras 3.
    """
    with tempfile.TemporaryDirectory(prefix="structsparse_") as folder:
        writer = _LOADERS[contents.suffix]
        writer(contents, model, Path(folder))
    for layer in _keras_compat.inner_layers(model):
        _match_hard_sigmoid(layer)


def _load_hdf5(contents: Contents, model: keras.Model, folder: Path) -> None:
    link = folder / "model.h5"  # Keras looks at the ending of the name.
    link.symlink_to(contents.path.resolve())
    model.load_weights(link)


def _load_zip(contents: Contents, model: keras.Model, folder: Path) -> None:
    """Put the old weights into a file that Keras 3 wrote, by their paths."""
    new = folder / "new.weights.h5"
    model.save_weights(new)
    with zipfile.ZipFile(contents.path) as archive:
        old = archive.extract(WEIGHTS, folder)
    with h5py.File(old, "r") as source, h5py.File(new, "r+") as target:
        wanted = _by_rank(_data_sets(target))
        parts = {path.partition("/")[0] for path in wanted}  # Others are of the optimizer.
        read = ((_new_path(path), data) for path, data in _data_sets(source))
        found = _by_rank(pair for pair in read if pair[0].partition("/")[0] in parts)
        if different := sorted(set(found) ^ set(wanted)):
            raise ModelError(f"the weights do not fit the layers: {', '.join(different[:3])}")
        for path in wanted:
            if wanted[path].shape != found[path].shape:
                raise ModelError(
                    f"weight {path}: expected the shape {wanted[path].shape}. "
                    f"Received: {found[path].shape}"
                )
            wanted[path][...] = found[path][...]
    model.load_weights(new)


_LOADERS = {".h5": _load_hdf5, ".keras": _load_zip}


def _data_sets(file: h5py.File) -> Iterator[tuple[str, Any]]:
    """The weights of a file by path, without the states of dropout, which Keras 2 did not have."""
    found: list[tuple[str, Any]] = []

    def visit(path: str, item: Any) -> None:
        # An external data set would be another file's.
        if isinstance(item, h5py.Dataset) and not item.external:
            found.append((path, item))

    file.visititems(visit)
    yield from (p for p in found if "/vars/" in f"/{p[0]}" and "seed_generator" not in p[0])


def _by_rank(weights: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Weights by a path in which the layers of each class are numbered without gaps.

    Some versions of Keras 2 count the layers that have weights twice.
    """
    pairs = [(path.split("/"), data) for path, data in weights]
    numbers: dict[tuple[str, ...], set[tuple[str, int]]] = {}
    for parts, _ in pairs:
        for place in _layer_places(parts):
            numbers.setdefault(tuple(parts[:place]), set()).add(_numbered(parts[place]))
    found = {}
    for parts, data in pairs:
        new = list(parts)
        for place in _layer_places(parts):
            kind, number = _numbered(parts[place])
            own = sorted(n for k, n in numbers[tuple(parts[:place])] if k == kind)
            new[place] = f"{kind} {own.index(number)}"
        found["/".join(new)] = data
    return found


def _layer_places(parts: Sequence[str]) -> list[int]:
    return [i + 1 for i, part in enumerate(parts[:-1]) if part == "layers"]


def _numbered(name: str) -> tuple[str, int]:
    """The class and the number in a name such as "conv2d_1"; the first has none."""
    kind, _, number = name.rpartition("_")
    return (kind, int(number)) if kind and number.isdecimal() else (name, 0)


def _new_path(path: str) -> str:
    """The path that Keras 3 gives a weight; Windows wrote other separators."""
    return path.replace("\\", "/").replace("_layer_checkpoint_dependencies", "layers")


def _match_hard_sigmoid(layer: keras.Layer) -> None:
    """Scale the gates of a recurrent layer so that its hard sigmoid is that of Keras 2.

    Raises:
        ModelError: The layer uses the function elsewhere.
    """
    hard = keras.activations.hard_sigmoid
    if getattr(layer, "activation", None) is hard:
        raise ModelError(
            f"layer '{layer.name}' ({type(layer).__name__}): its activation hard_sigmoid is "
            "another function in Keras 3"
        )
    if getattr(layer, "recurrent_activation", None) is not hard or hasattr(layer, "cell"):
        return
    blocks = layer.kernel.shape[-1] // layer.recurrent_kernel.shape[-2]
    width = layer.kernel.shape[-1] // blocks
    factors = np.ones(layer.kernel.shape[-1])
    for gate in _GATES[blocks]:
        factors[gate * width : (gate + 1) * width] = _STEEPER
    for weight in layer.weights:
        value = keras.ops.convert_to_numpy(weight)
        weight.assign((value * factors).astype(value.dtype))
