"""Numbers of 8 bits: how weights and activations are stored, and the inputs that are measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse._validation import one_of
from keras_structsparse.errors import ModelError
from keras_structsparse.graph import functional_graph

MODES: Mapping[str, tuple[str, ...]] = {"int8": ("litert", "onnx"), "dynamic": ("litert",)}
"""The formats that have a mode."""

EXAMPLES = 200
"""The most examples whose activations are measured."""


@dataclass(frozen=True, eq=False)
class Quantization:
    """How the numbers of an exported network are stored.

    Attributes:
        mode: "int8": weights and activations have 8 bits, the former with a scale for each output
            channel, the latter with the range that they have on examples. "dynamic": weights have
            8 bits, and activations get theirs at every run from the range that they have then.
        examples: The inputs of each example that is measured, one array (1, ...) for each input of
            the network; empty for "dynamic".
    """

    mode: str
    examples: tuple[tuple[Array, ...], ...] = field(default=(), repr=False)

    @classmethod
    def of(
        cls, model: keras.Model, format: str, mode: str | None, representative: Any
    ) -> Self | None:
        """Check the arguments of an export.

        Args:
            model: The network.
            format: The format to export to.
            mode: "int8", "dynamic" or None.
            representative: Inputs as the network gets them: an array (examples, ...), arrays nested
                as its inputs, or a ``tf.data.Dataset`` or ``keras.utils.PyDataset`` of batches
                ``(inputs, ...)``. Of arrays, 200 examples are taken evenly; of batches the first.

        Returns:
            The quantization; None without a mode.

        Raises:
            ModelError: The inputs do not fit the network.
            ValueError: The format has no such mode, or the mode needs inputs, or has no use for
                them.
        """
        if mode is None:
            if representative is not None:
                raise ValueError(
                    "representative: expected None without quantize='int8'. Received: "
                    f"{type(representative).__name__}"
                )
            return None
        one_of("quantize", mode, tuple(MODES))
        if format not in MODES[mode]:
            raise ValueError(
                f"quantize: expected the format {' or '.join(MODES[mode])} for {mode!r}. "
                f"Received: format={format!r}"
            )
        if (representative is None) == (mode == "int8"):
            raise ValueError(
                f"representative: expected {'inputs' if mode == 'int8' else 'None'} for "
                f"quantize={mode!r}. Received: {type(representative).__name__}"
            )
        functional_graph.read(model)  # Its errors say what has no inputs.
        found = () if representative is None else tuple(_examples(model, representative))
        return cls(mode, found)

    def batch(self, most: int) -> list[Array]:
        """Some of the examples, as one array for each input of the network.

        Args:
            most: Their largest number.
        """
        return [np.concatenate(own) for own in zip(*self.examples[:most], strict=True)]


def _examples(model: keras.Model, data: Any) -> Iterator[tuple[Array, ...]]:
    """The inputs of single examples, at most `EXAMPLES`."""
    rows: list[tuple[Array, ...]] = []
    for batch in _batches(data):
        arrays = _checked(model, batch)
        count, left = len(arrays[0]), EXAMPLES - len(rows)
        places = np.linspace(0, count - 1, min(count, left)).round().astype(int)
        rows += [tuple(array[i : i + 1] for array in arrays) for i in places]
        if len(rows) == EXAMPLES:
            break
    if not rows:
        raise ModelError("representative: expected at least one example. Received none")
    yield from rows


def _batches(data: Any) -> Iterable[Any]:
    """The inputs of batches."""
    if isinstance(data, keras.utils.PyDataset):
        numbers = range(EXAMPLES if data.num_batches is None else data.num_batches)
        return (keras.utils.unpack_x_y_sample_weight(data[i])[0] for i in numbers)
    if hasattr(data, "element_spec"):  # of tensorflow, which need not be installed
        return (keras.utils.unpack_x_y_sample_weight(own)[0] for own in islice(data, EXAMPLES))
    return (data,)


def _checked(model: keras.Model, inputs: Any) -> list[Array]:
    """The arrays of a batch, one for each input of the network, in its types."""
    arrays = [keras.ops.convert_to_numpy(each) for each in keras.tree.flatten(inputs)]
    shapes = [array.shape for array in arrays]
    wanted = [tuple(tensor.shape) for tensor in model.inputs]
    fits = len(shapes) == len(wanted) and len({shape[:1] for shape in shapes}) == 1
    if not fits or not all(map(_fits, shapes, wanted)):
        raise ModelError(
            f"representative: expected arrays of shapes {wanted}, nested as the model's inputs. "
            f"Received: {type(inputs).__name__} of shapes {shapes}"
        )
    if not all(np.isfinite(array).all() for array in arrays):
        raise ModelError("representative: expected finite numbers. Received some that are not")
    types = [keras.backend.standardize_dtype(tensor.dtype) for tensor in model.inputs]
    return [array.astype(own) for array, own in zip(arrays, types, strict=True)]


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    same = len(shape) == len(wanted) and shape[0] > 0
    return same and all(b in (None, a) for a, b in zip(shape[1:], wanted[1:], strict=True))


def litert_options(model: keras.Model, quantization: Quantization | None) -> dict[str, Any]:
    """The attributes of TensorFlow's converter.

    Args:
        model: The network.
        quantization: How its numbers are stored; None as they are.
    """
    if quantization is None:
        return {}
    import tensorflow as tf

    options: dict[str, Any] = {"optimizations": [tf.lite.Optimize.DEFAULT]}
    if quantization.mode == "int8":
        names = [tensor.name for tensor in model.inputs]

        def measured() -> Iterator[dict[str, Array]]:
            for arrays in quantization.examples:
                yield dict(zip(names, arrays, strict=True))

        options["representative_dataset"] = measured
        options["target_spec"] = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]}
    return options


def quantize_onnx(file: Path, quantization: Quantization) -> None:
    """Let a file for ONNX Runtime compute in 8 bits, in the QDQ form that others read too.

    Args:
        file: The file; it is replaced.
        quantization: With the examples to measure.

    Raises:
        ModelError: ONNX Runtime cannot run the file.
    """
    import onnxruntime
    from onnxruntime import quantization as tools

    try:
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes have no common one
        said = " ".join(str(error).split())[-300:]
        raise ModelError(
            f"onnx: expected a network that ONNX Runtime can run. Received: ... {said}"
        ) from error
    names = [each.name for each in session.get_inputs()]
    rows = iter([dict(zip(names, own, strict=True)) for own in quantization.examples])

    class Reader(tools.CalibrationDataReader):
        def get_next(self) -> dict[str, Array] | None:
            return next(rows, None)

    prepared, done = file.with_suffix(".prepared.onnx"), file.with_suffix(".quantized.onnx")
    try:
        # Symbolic shapes would need sympy.
        tools.shape_inference.quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
        tools.quantize_static(
            str(prepared),
            str(done),
            Reader(),
            quant_format=tools.QuantFormat.QDQ,
            per_channel=True,
            activation_type=tools.QuantType.QInt8,
            weight_type=tools.QuantType.QInt8,
        )
        done.replace(file)
    finally:
        for path in (prepared, done):
            path.unlink(missing_ok=True)
