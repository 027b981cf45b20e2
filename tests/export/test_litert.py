"""What LiteRT cannot run is refused in one line that names the layer and what to do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import keras
import pytest
from keras import layers as L

import keras_structsparse as kss
from keras_structsparse.errors import ModelError
from keras_structsparse.export import formats, litert

pytest.importorskip("tensorflow")


def model(*stack: keras.Layer, shape: tuple[int, ...] = (6, 3)) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *stack])


LOOPS: list[tuple[str, Callable[[], keras.Model]]] = [
    ("'a' (LSTM)", lambda: model(L.LSTM(3, name="a"))),
    (
        "'a' (GRU), 'b' (SimpleRNN)",
        lambda: model(L.GRU(3, return_sequences=True, name="a"), L.SimpleRNN(3, name="b")),
    ),
    ("'a' (Bidirectional)", lambda: model(L.Bidirectional(L.LSTM(3), name="a"))),
    ("'a' (RNN)", lambda: model(L.RNN([L.LSTMCell(3), L.GRUCell(2)], name="a"))),
    ("'a' (ConvLSTM1D)", lambda: model(L.ConvLSTM1D(3, 3, name="a"), shape=(4, 6, 3))),
    ("'a' (GRU)", lambda: model(model(L.GRU(3, name="a")), L.Dense(2))),
]


@pytest.mark.parametrize(("named", "build"), LOOPS)
@pytest.mark.parametrize("function", [kss.export, formats.export])
def test_loops_are_refused(
    named: str, build: Callable[[], keras.Model], function: Callable[..., object], tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as caught:
        function(build(), tmp_path / "model.tflite", "litert")
    said = str(caught.value)
    assert f"Received: {named}. Make them with unroll=True" in said
    assert "'saved_model' or 'onnx'" in said
    assert "\n" not in said
    assert os.listdir(tmp_path) == []


def test_what_the_message_says_helps(tmp_path: Path) -> None:
    looping = model(L.LSTM(3, name="a"), L.Dense(2))
    unrolled = model(L.LSTM(3, unroll=True, name="a"), L.Dense(2))
    unrolled.set_weights(looping.get_weights())
    assert kss.export(unrolled, tmp_path / "model.tflite", "litert").difference < 1e-5
    assert kss.export(looping, tmp_path / "saved").difference < 1e-5


def test_an_operation_that_litert_lacks_is_named_with_its_layer(tmp_path: Path) -> None:
    network = model(L.Dense(2), L.Lambda(lambda x: keras.ops.erfinv(x / 10), name="inverse"))
    with pytest.raises(ModelError, match=r"Received: Erfinv in 'inverse'; export to") as caught:
        kss.export(network, tmp_path / "model.tflite", "litert")
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_other_errors_of_the_converter_are_kept() -> None:
    assert litert.refusal(model(L.Dense(2)), RuntimeError("the disk is full")) is None
