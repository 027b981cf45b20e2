"""What folding batch normalisations is worth in exported networks, and what surgery is then.

    nice -n -20 python benchmarks/folding.py

Four networks are timed in turns in one process at batch 1, in TensorFlow (as SavedModel), ONNX
Runtime and LiteRT: before and after surgery on a planted plan, as they are and folded. The outputs
of an export are compared with Keras' first. The last column is the part of the promise that is
kept: the speed-up of the folded, pruned network over the folded, dense one, divided by that of the
multiply-adds. Results go to benchmarks/results/folding.jsonl.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import tempfile
import warnings
from typing import Any

import keras
import latency
import numpy as np
from runs import RESULTS, Row, machine

from keras_structsparse import folded, profile, prune
from keras_structsparse.export.formats import export

Array = Any

LINES = RESULTS / "folding.jsonl"
SIDES = ("dense", "dense_folded", "pruned", "pruned_folded")


def saved_model(model: keras.Model, batch: Array) -> latency.Run:
    """The endpoint of a SavedModel."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = export(model, os.path.join(folder, "saved"))
        loaded = tf.saved_model.load(str(path))
    return lambda loaded=loaded: loaded.serve(tf.constant(batch)).numpy()


RUNTIMES = {
    "saved_model": (saved_model, "tensorflow"),
    "onnxruntime": (latency.onnxruntime, "tf2onnx"),
    "litert": (latency.litert, "tensorflow"),
}


def animate(model: keras.Model) -> keras.Model:
    """Statistics as training leaves them: not zero and one, so that folding has to do its work."""
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for weight in layer.weights:
                weight.assign(weight * rng.uniform(0.8, 1.2, weight.shape))
    return model


def measure(name: str, repeats: int) -> None:
    """Time a network before and after surgery, as it is and folded, on every runtime."""
    model, plan = latency.planted(latency.NETWORKS[name]())
    pruned = prune(animate(model), plan)
    networks = [model, folded(model), pruned, folded(pruned)]
    work = [profile(each).multiply_adds for each in (model, pruned)]
    batch = np.random.default_rng(0).random((1, *model.inputs[0].shape[1:]), "float32")
    for runtime, (make, needed) in RUNTIMES.items():
        if importlib.util.find_spec(needed) is not None:
            seconds = latency.timed(networks, make, batch, repeats)
            times = dict(zip(SIDES, seconds, strict=True))
            report({"network": name, "runtime": runtime, "multiply_adds": work, **times})


def report(row: Row) -> None:
    """Keep a row, and print it with what it means."""
    with LINES.open("a") as file:
        file.write(json.dumps({**row, "machine": machine(), "cores": os.cpu_count()}) + "\n")
    dense, dense_folded, pruned, pruned_folded = (row[side] for side in SIDES)
    whole, left = row["multiply_adds"]
    print(
        f"{row['network']:<26} {row['runtime']:<12} {dense:>8.2f} {dense_folded:>8.2f} "
        f"{dense_folded / dense:>6.2f} {pruned:>8.2f} {pruned_folded:>8.2f} "
        f"{pruned_folded / pruned:>6.2f} {left / whole:>8.2f} "
        f"{100 * (dense_folded / pruned_folded) / (whole / left):>5.0f} %",
        flush=True,
    )


def main() -> None:
    """Measure the networks asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", help=f"of {', '.join(latency.NETWORKS)}; all by default"
    )
    parser.add_argument("--repeats", type=int, default=100)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of the exporters
    print(
        f"{'network':<26} {'runtime':<12} {'dense ms':>8} {'folded':>8} {'time':>6} "
        f"{'pruned':>8} {'folded':>8} {'time':>6} {'m.-adds':>8} {'kept':>7}"
    )
    for name in options.names or latency.NETWORKS:
        measure(name, options.repeats)


if __name__ == "__main__":
    main()
