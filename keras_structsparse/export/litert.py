"""What LiteRT cannot run, in one line that names the layer; its converter says it in pages."""

from __future__ import annotations

import re
from collections.abc import Iterator

import keras

from keras_structsparse import _keras_compat
from keras_structsparse.errors import ModelError

OTHERS = "export to 'saved_model' or 'onnx' instead"


def check_loops(model: keras.Model) -> None:
    """Raise if recurrent layers loop over their steps, which is written but does not run.

    Args:
        model: A built model.

    Raises:
        ModelError: There are such layers.

    Examples:
        >>> layers = [keras.layers.LSTM(3, unroll=True), keras.layers.Dense(2)]
        >>> check_loops(keras.Sequential([keras.Input((8, 2)), *layers]))
    """
    found = [f"'{layer.name}' ({type(layer).__name__})" for layer in _looping(model)]
    if found:
        raise ModelError(
            "litert: expected no recurrent layers that loop over their steps. Received: "
            f"{', '.join(found)}. Make them with unroll=True, which takes the same weights and "
            f"needs a fixed number of steps, or {OTHERS}"
        )


def _looping(model: keras.Model) -> Iterator[keras.Layer]:
    """The layers that loop, or hold one that does, also inside of nested models."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _looping(layer)
        elif any(_loops(each) for each in (layer, *_keras_compat.inner_layers(layer))):
            yield layer


def _loops(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.RNN) and not layer.unroll


def refusal(model: keras.Model, error: Exception) -> ModelError | None:
    """The error to raise in place of one of the converter.

    Args:
        model: The model.
        error: What the converter raised.

    Returns:
        An error that names the operations that LiteRT lacks, and the layers that call them; None
        if the given one tells of something else.
    """
    found = re.search(r"^(?:Custom|Flex) ops: (.*)$", str(error), re.MULTILINE)
    alone = sorted(set(re.findall(r"'tf\.(\w+)' op is neither a custom op", str(error))))
    if found is None and not alone:
        return None
    lacking = ", ".join(alone) if found is None else found[1]
    # Places are paths such as "model/layer_1/function@", where Keras has added the number.
    places = " ".join(re.findall(r'"([^"]*/[^"]*)@', str(error)))
    parts = {re.sub(r"_\d+$", "", part) for part in re.split(r"[/ ]", places)}
    names = [f"'{layer.name}'" for layer in model.layers if layer.name in parts]
    where = f" in {', '.join(names)}" * bool(names)
    return ModelError(
        f"litert: expected operations that LiteRT has. Received: {lacking}{where}; {OTHERS}"
    )
