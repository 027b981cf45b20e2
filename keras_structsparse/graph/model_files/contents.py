"""What a file holds, read without building anything: a model, or what else it is.

The content of the file decides, not the ending of its name.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from keras_structsparse.errors import ModelError

SUFFIXES = (".keras", ".h5", ".hdf5")
"""The endings of model files."""

EXPECTED = "expected a .keras or .h5 file that holds a Keras model"

HDF5 = b"\x89HDF\r\n\x1a\n"
ZIP = b"PK\x03\x04"
CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"

_LARGEST_CONFIG = 2**28
_HEAD = 512

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (
        0,
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself; `git lfs pull` gets it",
    ),
    (0, b"/annex/objects/", "a git-annex pointer, not the file itself; `git annex get` gets it"),
    (0, b"../.git/annex/", "a git-annex pointer, not the file itself; `git annex get` gets it"),
    (0, b".git/annex/", "a git-annex pointer, not the file itself; `git annex get` gets it"),
    (4, b"TFL3", "a LiteRT (TensorFlow Lite) file, which holds no Keras model"),
    (0, b"\x1f\x8b", "a gzip file; unpack it first"),
    (0, b"\x80", "a pickle, or other binary data"),
    (0, b"<", "a web page or XML text"),
    (0, b"{", "JSON text, without weights"),
)
"""Where other files have which bytes, and what they are."""


@dataclass(frozen=True)
class Contents:
    """The parts of a model file that say what the model is.

    Attributes:
        path: The file.
        suffix: The ending that the content would have: ".keras" for a zip archive, ".h5" for HDF5.
        config: The configuration of the model.
        version: The version of Keras that wrote the file; empty if it is not recorded.
        backend: The backend that the weights were trained with; empty if it is not recorded.
    """

    path: Path
    suffix: str
    config: Any
    version: str
    backend: str

    @property
    def is_legacy(self) -> bool:
        """Whether a Keras before 3 wrote the file."""
        return not self.version or self.version.partition(".")[0] in ("0", "1", "2")

    @property
    def writer(self) -> str:
        """The Keras that wrote the file, for messages."""
        return f"Keras {self.version}" if self.version else "an unknown, old version of Keras"


def read(path: Path) -> Contents:
    """Read what a model file says of its model.

    Args:
        path: The file.

    Returns:
        The contents. Nothing of the model is built yet.

    Raises:
        ModelError: The file does not exist, or holds no model: the message names what it is.
    """
    if not path.is_file():
        raise refused(path, _no_file(path))
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise refused(path, f"a file that cannot be read: {error.strerror}") from error
    for start, reader in _READERS.items():
        if head.startswith(start):
            return reader(path)
    raise refused(path, _named(head))


def refused(path: Path, what: str) -> ModelError:
    """The error for a file that holds no model.

    Args:
        path: The file.
        what: What it is.
    """
    return ModelError(f"'{path}': {EXPECTED}. Received {what}.")


def _no_file(path: Path) -> str:
    if path.is_symlink():
        target = os.readlink(path)
        annexed = "annex/objects" in target
        hint = "; `git annex get` gets the file of git-annex" if annexed else ""
        return f"a symbolic link to '{target}', which does not exist{hint}"
    if not path.is_dir():
        return "nothing: there is no such file"
    if (path / "saved_model.pb").is_file():
        return "the directory of a TensorFlow SavedModel, which holds no Keras model"
    return "a directory"


def _named(head: bytes) -> str:
    """What a file is that begins with some bytes."""
    if not head:
        return "an empty file"
    text = head.lstrip()
    for place, mark, name in _SIGNATURES:
        if text[place:].startswith(mark) or head[place:].startswith(mark):
            return name
    return f"neither a zip archive nor HDF5: the file begins with {head[:16]!r}"


def _read_zip(path: Path) -> Contents:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if CONFIG not in names:
                held = ", ".join(sorted(names)[:3]) or "nothing"
                raise refused(path, f"a zip archive that is not of Keras: it holds {held}")
            if archive.getinfo(CONFIG).file_size > _LARGEST_CONFIG:
                raise refused(path, f"an archive whose {CONFIG} is too large")
            config = json.loads(archive.read(CONFIG))
            metadata = json.loads(archive.read(METADATA)) if METADATA in names else {}
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise refused(path, f"a damaged or incomplete zip archive ({error})") from error
    except ValueError as error:
        if isinstance(error, ModelError):
            raise
        raise refused(path, f"an archive whose {CONFIG} is not JSON ({error})") from error
    version = metadata.get("keras_version", "") if isinstance(metadata, Mapping) else ""
    return Contents(path, ".keras", _checked(path, config), str(version or ""), "")


def _read_hdf5(path: Path) -> Contents:
    try:
        with h5py.File(path, "r") as file:
            found = {name: _text(file.attrs.get(name)) for name in _ATTRIBUTES}
            groups = list(file)[:4]
    except (OSError, RuntimeError, ValueError) as error:
        raise refused(path, f"a damaged or incomplete HDF5 file ({error})") from error
    if not found["model_config"]:
        raise refused(path, _without_model(groups))
    try:
        config = json.loads(found["model_config"])
    except ValueError as error:
        raise refused(path, f"an HDF5 file whose model_config is not JSON ({error})") from error
    return Contents(path, ".h5", _checked(path, config), found["keras_version"], found["backend"])


_ATTRIBUTES = ("model_config", "keras_version", "backend")

_OF_WEIGHTS = frozenset({"layers", "_layer_checkpoint_dependencies", "top_level_model_weights"})


def _without_model(groups: list[str]) -> str:
    """What an HDF5 file without the configuration of a model is."""
    held = ", ".join(groups) or "nothing"
    if _OF_WEIGHTS & set(groups) or not groups:
        what = "weights without a model"
    else:
        what = "an HDF5 file without the configuration of a model, perhaps weights alone"
    return f"{what} (it holds {held}); build the model in Python and use its load_weights"


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value or "")


def _checked(path: Path, config: Any) -> Any:
    """The configuration, if it has the form of an object's."""
    if not isinstance(config, dict) or not {"class_name", "config"} <= set(config):
        raise refused(path, "a file whose configuration is not that of a Keras model")
    return config


_READERS: Mapping[bytes, Callable[[Path], Contents]] = {ZIP: _read_zip, HDF5: _read_hdf5}
