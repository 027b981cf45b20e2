"""What the saved multiply-adds are worth in time: TensorFlow, ONNX Runtime and LiteRT.

    python benchmarks/latency.py                        # a planted plan
    python benchmarks/latency.py --coupled              # one that narrows residual streams
    python benchmarks/latency.py --threads 1            # instead of one for every core
    python benchmarks/latency.py --points points.json   # that of a quickstart, with its network
    python benchmarks/latency.py --trained model.keras  # a network trained with a penalty

Each network is timed before and after surgery, in turns in one process, on every runtime; the
outputs of an export are compared with Keras' first. Both have their normalisations folded, as
``structsparse export`` does. The last column is the part of the promise that is kept: the speed-up
divided by that of the multiply-adds. Every run adds to benchmarks/results/latency.jsonl; the table,
latency.txt, has the medians of the runs. Runtimes that are not installed are left out.
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
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import planting
from runs import RESULTS, Results, Row, groups, machine

from keras_structsparse import models
from keras_structsparse.export.formats import load_model
from keras_structsparse.graph.batch_norm_folding import folded
from keras_structsparse.models.base_architecture import Base, build_base
from keras_structsparse.profiling import latency
from keras_structsparse.profiling.profile import profile
from keras_structsparse.surgery import Costs, prune
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.surgery.plans import plan as read_off

Array = Any
Run = Callable[[], Any]

LINES = RESULTS / "latency.jsonl"
DEAD = 0.5
RESNET20 = Base(((16, 3),) * 7 + ((32, 3),) * 6 + ((64, 3),) * 6, strided=(7, 13))


# --- the runtimes: from a model and a batch to a function that runs it ---


def tensorflow(model: keras.Model, batch: Array, threads: int) -> Run:
    """The compiled Keras model; its threads are those that TensorFlow was started with."""
    return latency.compiled(model, batch)


def onnxruntime(model: keras.Model, batch: Array, threads: int) -> Run:
    """ONNX Runtime."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # Else the threads of the network whose turn it was stay busy for a while, waiting for work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with exported(model, "onnx") as path:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: batch}
    return lambda: session.run(None, feed)[0]


def litert(model: keras.Model, batch: Array, threads: int) -> Run:
    """LiteRT."""
    import tensorflow as tf

    with exported(model, "litert") as path:
        content = Path(path).read_bytes()
    network = tf.lite.Interpreter(model_content=content, num_threads=threads)
    (given,), (made,) = network.get_input_details(), network.get_output_details()
    network.resize_tensor_input(given["index"], batch.shape)
    network.allocate_tensors()

    def run() -> Array:
        network.set_tensor(given["index"], batch)
        network.invoke()
        return network.get_tensor(made["index"])

    return run


RUNTIMES: dict[str, Callable[[keras.Model, Array, int], Run]] = {
    "tensorflow": tensorflow,
    "onnxruntime": onnxruntime,
    "litert": litert,
}
NEEDS = {"tensorflow": "tensorflow", "onnxruntime": "tf2onnx", "litert": "tensorflow"}


@contextlib.contextmanager
def exported(model: keras.Model, format: str) -> Iterator[str]:
    """A file of the model, while it is read."""
    suffix = {"onnx": "onnx", "litert": "tflite"}[format]
    model(np.zeros((1, *model.inputs[0].shape[1:]), "float32"))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = str(Path(folder, f"model.{suffix}"))
        model.export(path, format=format, verbose=False)
        yield path


# --- the networks ---


def planted(name: str, coupled: bool) -> tuple[str, keras.Model, Plan]:
    """Half of the kernels removed, the others of random sizes."""
    model = NETWORKS[name]()
    planting.animate(model)
    plan = planting.random_plan(model, dead=DEAD)
    if coupled:
        return f"{name}, coupled", model, planting.coupled(model, plan)
    return name, model, plan


def resnet50() -> keras.Model:
    """The published network, untrained."""
    return keras.applications.ResNet50(weights=None, classifier_activation=None)


NETWORKS: dict[str, Callable[[], keras.Model]] = {
    "fashion-mnist-residual": lambda: models.build("fashion-mnist-residual"),
    "ResNet-20, 32x32": lambda: build_base(RESNET20, (32, 32, 3), 10),
    "ResNet50, 224x224": resnet50,
}


def of_points(path: Path) -> tuple[str, keras.Model, Plan]:
    """The network of a quickstart with the plan of its chosen point."""
    content = json.loads(path.read_text())
    chosen, name = content["points"][content["chosen"]], content["settings"]["model"]
    model = models.build(name)
    planting.animate(model)
    return f"{name}, quickstart", model, Plan(chosen["sizes"])


def of_file(path: Path, options: argparse.Namespace) -> tuple[str, keras.Model, Plan]:
    """A network that was trained with a penalty, and what a threshold leaves of it."""
    model = load_model(path)
    return path.stem, model, read_off(model, options.tau, round_to=options.round_to)


# --- the measurement ---


def measure(name: str, model: keras.Model, plan: Plan, options: argparse.Namespace) -> None:
    """Time a network before and after surgery on every runtime."""
    for size in options.batch_sizes:
        # An operation is started once for a batch.
        costs = Costs(start=Costs.start / size)
        pruned = prune(model, plan, "exact", **asked(options), costs=costs)
        work = [profile(each).multiply_adds for each in (model, pruned)]
        for runtime, make in RUNTIMES.items():
            if importlib.util.find_spec(NEEDS[runtime]) is None:
                continue
            batch = np.random.default_rng(0).random((size, *model.inputs[0].shape[1:]), "float32")
            own = partial(make, batch=batch, threads=options.threads)
            seconds = timed([folded(model), folded(pruned)], own, batch, options.repeats)
            row = {"network": name, **asked(options), "runtime": runtime, "batch": size}
            row["threads"] = options.threads
            report({**row, "multiply_adds": work, "milliseconds": seconds})


def asked(options: argparse.Namespace) -> dict[str, Any]:
    """What is asked of surgery."""
    return {"realize": options.realize, "round_to": options.round_to}


def timed(
    networks: list[keras.Model], make: Callable[[keras.Model], Run], batch: Array, n: int
) -> list[float]:
    """Median milliseconds of each network, in turns."""
    functions = [make(network) for network in networks]
    for network, run in zip(networks, functions, strict=True):
        expected = np.asarray(network(batch))
        np.testing.assert_allclose(run(), expected, atol=1e-3 * np.abs(expected).max())
    return [float(value) for value in 1e3 * np.median(latency.timed_in_turns(functions, n), axis=0)]


def report(row: Row) -> None:
    """Keep a row, and print it."""
    Results(LINES).add({**row, "machine": machine(), "cores": os.cpu_count()})


def table(rows: Sequence[Row]) -> str:
    """What the rows mean: the medians of all runs."""
    text = (
        f"{'network':<31} {'runtime':<12} {'round to':>8} {'batch':>5} {'threads':>7} "
        f"{'dense ms':>9} {'pruned ms':>9} {'time':>6} {'m.-adds':>8} {'kept':>6}  "
        "time of each run\n"
    )
    found = groups(rows, "network", "batch", "threads", "round_to", "runtime")
    for (network, batch, threads, block, runtime), own in found.items():
        times = np.array([row["milliseconds"] for row in own])
        dense, pruned = np.median(times, axis=0)
        ratios = times[:, 1] / times[:, 0]
        time, work = np.median(ratios), own[0]["multiply_adds"][1] / own[0]["multiply_adds"][0]
        each = " ".join(f"{ratio:.2f}" for ratio in ratios)
        text += (
            f"{network:<31} {runtime:<12} {block:>8} {batch:>5} {threads:>7} "
            f"{dense:>9.2f} {pruned:>9.2f} "
            f"{time:>6.2f} {work:>8.2f} {100 * work / time:>4.0f} %  {each}\n"
        )
    return text


def main() -> None:
    """Measure what is asked for, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NETWORKS)}; all unless given")
    parser.add_argument("--coupled", action="store_true", help="plant plans for whole streams")
    parser.add_argument("--points", type=Path, help="points.json of a quickstart")
    parser.add_argument("--trained", type=Path, help="a model file")
    parser.add_argument("--tau", type=float, default=1e-3, help="of the plan of a model file")
    parser.add_argument("--realize", default="auto", help="as in prune")
    parser.add_argument("--round-to", type=int, default=8, help="as in prune")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 128])
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of a runtime")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--table-only", action="store_true", help="use what the results hold")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of the exporters
    if not options.table_only:
        limit_tensorflow(options.threads)
        run(options)
    LINES.with_suffix(".txt").write_text(table(Results(LINES).rows))
    print(LINES.with_suffix(".txt").read_text(), end="")


def limit_tensorflow(threads: int) -> None:
    """Before its first operation: later it takes no limit."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def run(options: argparse.Namespace) -> None:
    """Measure the networks asked for."""
    if options.points:
        return measure(*of_points(options.points), options)
    if options.trained:
        return measure(*of_file(options.trained, options), options)
    for name in options.names or NETWORKS:
        if name == "ResNet50, 224x224":  # a batch of 128 takes minutes
            options.batch_sizes = [1]
        measure(*planted(name, options.coupled), options)


if __name__ == "__main__":
    main()
