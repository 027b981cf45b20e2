"""The pruned networks in the package: small ``.keras`` files, each with its card."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import keras

from keras_structsparse.errors import ModelError
from keras_structsparse.models.card import Card

FOLDER = Path(__file__).parent / "pruned"


@functools.cache
def cards(folder: Path = FOLDER) -> Mapping[str, Card]:
    """The cards of the pruned networks in the package.

    Args:
        folder: The folder of the files.

    Returns:
        Cards by the name that :func:`load` takes.

    Raises:
        ModelError: A JSON file in the folder is not a card.

    Examples:
        >>> card = cards()["digits-residual-40pc"]
        >>> card.base, card.multiply_adds <= 0.4 * card.dense_multiply_adds
        ('digits-residual', True)
    """
    files = sorted(folder.glob("*.json"))
    return MappingProxyType({f.stem: Card.from_json(f.read_text("utf-8")) for f in files})


def load(name: str, folder: Path = FOLDER) -> keras.Model:
    """Load a trained, pruned network of the package.

    It is a plain Keras model, not compiled. Its card is ``cards()[name]``.

    Args:
        name: Its name; "40pc" means at most 40 % of the multiply-adds of its base.
        folder: The folder of the files.

    Returns:
        The network.

    Raises:
        ModelError: The file is missing, or its checksum is not that of the card.
        ValueError: There is no network of that name.

    Examples:
        >>> load("digits-residual-40pc").input_shape
        (None, 8, 8, 1)
    """
    known = cards(folder)
    if name not in known:
        raise ValueError(f"name: expected one of {', '.join(known)}. Received: {name!r}")
    file = folder / f"{name}.keras"
    if not file.is_file():
        raise ModelError(f"{name}: expected the file {file.name} beside its card. Received none.")
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != known[name].sha256:
        raise ModelError(
            f"{name}: expected the file of its card, SHA-256 {known[name].sha256}. "
            f"Received: {file.name} with {found}"
        )
    return keras.models.load_model(file, compile=False)
