"""Hold text in a model so that it is saved and loaded with it, by Keras alone.

A layer's ``dtype`` may be a ``keras.dtype_policies.DTypePolicyMap``: its default policy is what the
layer computes with, and its keys are paths of layers, as free text. Keras saves the map with the
configuration of the layer. So a key that is the path of no layer changes nothing that is computed,
and is found again on ``keras.models.load_model(path)``. Keras reads the keys as regular expressions
too; keys of letters, digits, "-" and "_" match only themselves.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Any

import keras
from keras.dtype_policies import DTypePolicy, DTypePolicyMap

from keras_structsparse import _keras_compat

PREFIX = "structsparse_text_"

LARGEST = 2**26
"""Bytes of text that are read at most: a damaged or malicious file must not fill the memory."""

BUILT_IN = frozenset(kind for kind in vars(keras.layers).values() if isinstance(kind, type))
REFUSED = (keras.layers.InputLayer, keras.layers.Lambda, keras.Model)
"""An input and a nested model save no policy, and a Lambda may not be loadable."""
QUANTIZABLE = (keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Embedding)
"""``quantize`` makes the name of a new policy from that of the old one, and a map has none."""


def embed(model: keras.Model, text: str) -> None:
    """Write text into one layer of a model, in place of what :func:`embed` wrote before.

    Args:
        model: A model. If no layer can hold text, it is left as it is.
        text: Any text; it is compressed.
    """
    for layer in model.layers:
        policy = layer.dtype_policy
        if plain_policy(policy) is not policy:
            _keras_compat.set_dtype_policy(layer, plain_policy(policy))
    holders = [layer for layer in model.layers if _can_hold(layer)]
    if holders:
        layer = min(holders, key=_unsuitability)
        own = layer.dtype_policy
        _keras_compat.set_dtype_policy(layer, DTypePolicyMap(own, {_encoded(text): own}))


def embedded(model: keras.Model) -> str | None:
    """The text that :func:`embed` wrote into a model, or into the model that was saved.

    Args:
        model: A model.

    Returns:
        The text; None if there is none, or it cannot be read.
    """
    policies = [layer.dtype_policy for layer in getattr(model, "layers", ())]
    keys = [key for policy in policies for key in _keys(policy)]
    return _decoded(keys[0]) if keys else None


def plain_policy(policy: Any) -> Any:
    """A dtype policy without embedded text; the same object if it holds none."""
    if not _keys(policy):
        return policy
    rest = {path: own for path, own in policy.items() if not path.startswith(PREFIX)}
    return DTypePolicyMap(policy.default_policy, rest) if rest else policy.default_policy


def without_text(entry: dict[str, Any]) -> Any:
    """The ``dtype`` entry of a layer's configuration without embedded text.

    Args:
        entry: Any entry of a configuration.

    Returns:
        The entry; the same object if it is not a map that holds text.
    """
    if entry.get("class_name") != DTypePolicyMap.__name__:
        return entry
    policy = keras.dtype_policies.deserialize(entry)
    plain = plain_policy(policy)
    return entry if plain is policy else keras.dtype_policies.serialize(plain)


def _can_hold(layer: keras.Layer) -> bool:
    """Whether a layer saves a map of policies, and can be saved again when it was loaded.

    A layer without ``get_config`` cannot: then Keras saves the arguments of its constructor, and
    only if they are numbers and texts.
    """
    own = type(layer).get_config is not keras.layers.Layer.get_config
    return own and type(layer.dtype_policy) is DTypePolicy and not isinstance(layer, REFUSED)


def _unsuitability(layer: keras.Layer) -> tuple[bool, ...]:
    """Sorts layers: Keras' own, without layers inside and without weights come first."""
    return (
        type(layer) not in BUILT_IN,
        bool(_keras_compat.inner_layers(layer)),
        isinstance(layer, QUANTIZABLE),
        bool(layer.weights),
    )


def _keys(policy: Any) -> list[str]:
    return [k for k in policy if k.startswith(PREFIX)] if isinstance(policy, DTypePolicyMap) else []


def _encoded(text: str) -> str:
    """Letters, digits, "-" and "_" only."""
    return PREFIX + base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")


def _decoded(key: str) -> str | None:
    packed = key.removeprefix(PREFIX)
    try:
        padded = packed + "=" * (-len(packed) % 4)
        reader = zlib.decompressobj()
        text = reader.decompress(base64.urlsafe_b64decode(padded), LARGEST)
        return text.decode() if reader.eof else None
    except (binascii.Error, zlib.error, UnicodeDecodeError):
        return None
