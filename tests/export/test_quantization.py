"""Networks in 8 bits: their files run, compute nearly the same, and hold numbers of 8 bits."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

import keras_structsparse as kss
from keras_structsparse import models
from keras_structsparse.data.datasets import load
from keras_structsparse.errors import ModelError
from keras_structsparse.export import clean_process, verified
from keras_structsparse.export.quantization import EXAMPLES, Quantization
from keras_structsparse.graph.functional_graph import input_structure

tf = pytest.importorskip("tensorflow")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated"),
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="LiteRT needs TensorFlow"),
]

SUFFIX = {"litert": ".tflite", "onnx": ".onnx"}


def images(*stack: keras.Layer) -> keras.Model:
    return keras.Sequential([keras.Input((12, 12, 3)), *stack])


def convolutions() -> keras.Model:
    """One kernel is zero: its scale would be 0."""
    head = L.GlobalAveragePooling2D(), L.Dense(5, "softmax", name="head")
    first = L.Conv2D(16, 3, name="first"), L.BatchNormalization(), L.ReLU(6.0)
    model = images(*first, L.DepthwiseConv2D(3), L.SeparableConv2D(16, 3), *head)
    kernel = model.get_layer("first").kernel
    kernel.assign(keras.ops.convert_to_numpy(kernel) * (np.arange(16) != 3))
    return model


def two_inputs() -> keras.Model:
    first, second = keras.Input((8,), name="one"), keras.Input((4,), name="two")
    joined = L.Dense(64, "relu")(L.Concatenate()([first, second]))
    return keras.Model({"two": second, "one": first}, {"sum": L.Dense(32)(joined)})


def words() -> keras.Model:
    stack = L.Embedding(20, 16), L.Conv1D(16, 3), L.GlobalAveragePooling1D(), L.Dense(2)
    return keras.Sequential([keras.Input((6,), dtype="int32"), *stack])


NETWORKS: dict[str, Callable[[], keras.Model]] = {
    "convolutions": convolutions,
    "two inputs": two_inputs,
    "words": words,
}


def inputs_of(model: keras.Model, count: int = 40, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    arrays = [
        rng.integers(0, 20, (count, *own.shape[1:]))
        if own.dtype == "int32"
        else rng.normal(size=(count, *own.shape[1:])).astype("float32")
        for own in model.inputs
    ]
    return keras.tree.pack_sequence_as(input_structure(model), arrays)


def integers(file: Path) -> int:
    """The number of tensors, or of nodes that make such, of 8 bits in a file."""
    if file.suffix == ".tflite":
        reader = tf.lite.Interpreter(str(file))
        return sum(each["dtype"] == np.int8 for each in reader.get_tensor_details())
    onnx = pytest.importorskip("onnx")
    return sum(node.op_type == "QuantizeLinear" for node in onnx.load(str(file)).graph.node)


@pytest.mark.parametrize("format", SUFFIX)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_in_8_bits_computes_nearly_the_same(
    name: str, format: str, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(0)
    model = NETWORKS[name]()
    file = tmp_path / f"model{SUFFIX[format]}"
    data = inputs_of(model)
    done = kss.export(model, file, format, quantize="int8", representative=data)
    assert 0 < done.difference < 0.05  # Not 0: numbers of 8 bits are coarse.
    assert done.quantized == "int8"
    assert "in 8 bits (int8)" in str(done)
    assert os.listdir(tmp_path) == [file.name]
    assert integers(file) > 2


@pytest.mark.parametrize("format", SUFFIX)
def test_other_exports_hold_no_numbers_of_8_bits(format: str, tmp_path: Path) -> None:
    file = tmp_path / f"model{SUFFIX[format]}"
    done = kss.export(two_inputs(), file, format)
    assert done.quantized is None
    assert "8 bits" not in str(done)
    assert integers(file) == 0


def test_dynamic_ranges_need_no_data(tmp_path: Path) -> None:
    model = two_inputs()
    done = kss.export(model, tmp_path / "model.tflite", "litert", quantize="dynamic")
    assert done.difference < 0.05
    assert integers(tmp_path / "model.tflite")
    assert done.size < 0.7 * kss.export(model, tmp_path / "plain.tflite", "litert").size


@pytest.mark.parametrize("format", SUFFIX)
def test_the_ranges_are_those_of_the_given_inputs(format: str, tmp_path: Path) -> None:
    """Inputs a hundred times as large as those that were measured are cut off."""
    keras.utils.set_random_seed(1)
    model, file = two_inputs(), tmp_path / f"model{SUFFIX[format]}"
    small = {name: 0.01 * array for name, array in inputs_of(model).items()}
    kss.export(model, file, format, quantize="int8", representative=small)
    for scale, most, least in ((1.0, 0.05, 0.0), (100.0, np.inf, 0.5)):
        inputs = {name: scale * array for name, array in small.items()}
        found = clean_process.check_portable(model, [file], inputs)[file]
        assert least <= found <= most


def test_the_digits_are_read_as_well(tmp_path: Path) -> None:
    """On images that were not measured; with pruned kernels of several sizes."""
    model, data = models.load("digits-residual-40pc"), load("digits")
    file = tmp_path / "model.tflite"
    kss.export(model, file, "litert", quantize="int8", representative=data.train.arrays[0])
    run = tf.lite.Interpreter(str(file)).get_signature_runner()
    (key,) = run.get_input_details()
    (found,) = run(**{key: data.test.arrays[0]}).values()
    expected = np.argmax(model.predict(data.test.arrays[0], verbose=0), axis=1)
    assert np.mean(np.argmax(found, axis=1) == expected) > 0.97
    plain = kss.export(model, tmp_path / "plain.tflite", "litert").size
    assert os.path.getsize(file) < 0.6 * plain


class Batches(keras.utils.PyDataset):
    def __init__(self, arrays: np.ndarray) -> None:
        super().__init__()
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays) // 10

    def __getitem__(self, index: int) -> Any:
        own = self.arrays[10 * index : 10 * index + 10]
        return own, np.zeros(len(own))


def test_examples_of_all_kinds_of_data() -> None:
    model = images(L.Flatten(), L.Dense(2))
    arrays = inputs_of(model, 330)
    few = Quantization.of(model, "litert", "int8", arrays[:50])
    assert few is not None
    np.testing.assert_array_equal(np.concatenate(few.batch(50)), arrays[:50])
    whole = Quantization.of(model, "litert", "int8", arrays)
    assert whole is not None
    numbers = [int(np.flatnonzero((arrays == own).all((1, 2, 3)))[0]) for (own,) in whole.examples]
    assert len(numbers) == EXAMPLES
    assert (numbers[0], numbers[-1]) == (0, 329)
    assert numbers == sorted(set(numbers))
    stream = tf.data.Dataset.from_tensor_slices((arrays, np.zeros(330))).batch(10)
    for data in (stream, Batches(arrays), stream.map(lambda x, y: x)):
        found = Quantization.of(model, "onnx", "int8", data)
        assert found is not None
        np.testing.assert_array_equal(found.batch(EXAMPLES)[0], arrays[:EXAMPLES])


@pytest.mark.parametrize(
    ("format", "options", "error", "message"),
    [
        ("litert", {"quantize": "int4"}, ValueError, "quantize: expected one of .*'int4'"),
        ("litert", {"quantize": "int8"}, ValueError, "representative: expected inputs for"),
        (
            "litert",
            {"quantize": "dynamic", "representative": [1]},
            ValueError,
            "representative: expected None for quantize='dynamic'. Received: list",
        ),
        ("onnx", {"quantize": "dynamic"}, ValueError, "expected the format litert for 'dynamic'"),
        (
            "litert",
            {"quantize": "int8", "representative": np.zeros((3, 12, 12, 1))},
            ModelError,
            r"expected arrays of shapes .* Received: ndarray of shapes \[\(3, 12, 12, 1\)\]",
        ),
        (
            "litert",
            {"quantize": "int8", "representative": np.zeros((0, 12, 12, 3))},
            ModelError,
            "representative: expected arrays",
        ),
        (
            "onnx",
            {"quantize": "int8", "representative": np.full((2, 12, 12, 3), np.nan)},
            ModelError,
            "representative: expected finite numbers",
        ),
    ],
)
def test_wrong_arguments_are_named(
    format: str, options: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        kss.export(convolutions(), tmp_path / f"model{SUFFIX[format]}", format, **options)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("model", "message"),
    [(keras.Sequential([L.Dense(2)]), "is not built"), ("a name", "Received: str")],
)
def test_a_model_without_a_graph_is_refused(model: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "model.tflite"
    with pytest.raises(ModelError, match=message):
        kss.export(model, file, "litert", quantize="int8", representative=np.zeros((3, 4)))
    assert os.listdir(tmp_path) == []


def test_an_operation_without_8_bits_is_named(tmp_path: Path) -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, L.Dense(2)(keras.ops.erf(L.Dense(3)(inputs))))
    data = inputs_of(model)
    with pytest.raises(ModelError, match=r"litert: expected operations that .* Received: Erf"):
        kss.export(model, tmp_path / "m.tflite", "litert", quantize="int8", representative=data)
    assert os.listdir(tmp_path) == []


def test_a_doubtful_result_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verified, "DOUBTFUL", 1e-9)
    model = two_inputs()
    with pytest.warns(UserWarning, match=r"in 8 bits \(dynamic\) differ by .*measure its accuracy"):
        kss.export(model, tmp_path / "model.tflite", "litert", quantize="dynamic")
