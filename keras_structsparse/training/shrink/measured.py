"""The numbers of a network before and after shrinking, as a user reads them."""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from keras_structsparse.errors import ModelError, StructSparseError
from keras_structsparse.export.formats import save_model
from keras_structsparse.export.runtimes import Runtime
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.profiling.latency import Latency, latency
from keras_structsparse.training.shrink.result import ShrinkResult
from keras_structsparse.training.training_data import Data

REPEATS = 100
"""How often the latency is measured."""

NOISE = 1.05
"""A time that is longer by no more than this factor may be the same."""

RUNTIMES = {"litert": "litert", "onnx": "onnxruntime"}
"""The runtime of an exported format."""


@dataclass(frozen=True)
class Row:
    """A number of both networks, as a user reads it.

    Attributes:
        name: What it is.
        before: Of the network before.
        after: Of the smaller network.
        share: After by before; empty where that says nothing.
        slower: Whether it is a time that became longer.
    """

    name: str
    before: str
    after: str
    share: str = ""
    slower: bool = False


def rows_of(
    result: ShrinkResult,
    model: keras.Model,
    test: Data | None = None,
    input_shape: Sequence[int] | None = None,
    formats: Sequence[str] = (),
) -> tuple[Row, ...]:
    """Costs, metrics, the latency of one example on this machine, and sizes of files.

    Args:
        result: What :func:`keras_structsparse.shrink` returned.
        model: The network before, compiled.
        test: Data that chose nothing, to evaluate both networks on.
        input_shape: Shape of one input, where the model leaves it open.
        formats: Formats in which the network is exported; the latency is measured in their runtimes
            too.
    """
    return (
        *_costs(result),
        *_metrics("validation", result.before, result.after),
        *_metrics("test", *(_evaluated(each, test) for each in (model, result.model))),
        *_times(model, result.model, input_shape),
        *_exported_times(model, result.model, formats),
        _sizes(model, result.model),
    )


def machine() -> str:
    """What the times were measured on."""
    return f"{platform.machine()}, {os.cpu_count()} cores, {keras.backend.backend()}"


def _costs(result: ShrinkResult) -> Iterator[Row]:
    for name, (before, after) in {
        "multiply-adds": result.comparison.multiply_adds,
        "parameters": result.comparison.params,
    }.items():
        yield Row(name, f"{before:,}", f"{after:,}", f"{after / max(before, 1):.1%}")


def _metrics(split: str, before: Mapping[str, float], after: Mapping[str, float]) -> Iterator[Row]:
    for name in before.keys() & after.keys() - {"loss"}:
        yield Row(f"{split} {name}", f"{before[name]:.4f}", f"{after[name]:.4f}")


def _evaluated(model: keras.Model, data: Data | None) -> Mapping[str, float]:
    if data is None:
        return {}
    x, y = data if isinstance(data, tuple) else (data, None)
    found: Mapping[str, float] = model.evaluate(x, y, return_dict=True, verbose=0)
    return found


def _times(
    model: keras.Model, smaller: keras.Model, input_shape: Sequence[int] | None
) -> Iterator[Row]:
    """The latency of both networks; nothing where a size is open."""
    networks = {"before": model, "after": smaller}
    try:
        rows = latency(networks, (1,), REPEATS, input_shape)
    except ModelError:
        return
    yield _time("milliseconds for one example", rows)


def _exported_times(
    model: keras.Model, smaller: keras.Model, formats: Sequence[str]
) -> Iterator[Row]:
    """The latency of the exported networks; nothing where a network cannot be exported."""
    networks = {"before": model, "after": smaller}
    for name in (RUNTIMES[each] for each in formats if each in RUNTIMES):
        with contextlib.suppress(StructSparseError, RuntimeError):
            rows = Runtime(name).latency(networks, REPEATS)
            yield _time(f"milliseconds for one example, {name} on one thread", rows)


def _time(name: str, rows: Sequence[Latency]) -> Row:
    before, after = (row.median for row in rows)
    return Row(
        name, f"{before:.3f}", f"{after:.3f}", f"{after / before:.1%}", after > NOISE * before
    )


def _sizes(model: keras.Model, smaller: keras.Model) -> Row:
    """The sizes of the files of Keras, without what an optimizer stores."""
    with tempfile.TemporaryDirectory() as folder:
        files = [
            save_model(copy_model(each), Path(folder, f"{number}.keras"))
            for number, each in enumerate((model, smaller))
        ]
        before, after = (file.stat().st_size for file in files)
    share = f"{after / before:.1%}"
    return Row("bytes of the Keras file without optimizer", f"{before:,}", f"{after:,}", share)
