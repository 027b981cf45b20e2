"""What surgery of ResNet50 takes: seconds, memory, and how often weights are read and written.

    python benchmarks/surgery.py

Every repeat is a process of its own, because the first call in a process is the slow one and the
only one whose memory can be told from what calls before it left. The plan removes three kernels in
ten and gives the others random sizes. Beside it, in a process of its own, what Keras takes to copy
the model without any change. Nothing is verified here: benchmarks/applications.py does.
"""

from __future__ import annotations

import argparse
import collections
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import planting
from applications import measured
from runs import RESULTS, Row, machine

REPORT = RESULTS / "surgery.txt"
LINE = "{what:<46}{median:>8}{least:>8}{most:>8}\n"


def examine() -> None:
    """One surgery, then one more with everything counted; the last line printed is JSON."""
    model = keras.applications.ResNet50(weights=None)
    plan = planting.random_plan(model)
    _, cost = measured(model, plan)
    with counted(model) as counts:
        measured(model, plan)
    print(json.dumps({**cost, **{key: max(times.values()) for key, times in counts.items()}}))


def copy() -> None:
    """What it takes Keras to copy the same model; the last line printed is JSON."""
    model = keras.applications.ResNet50(weights=None)
    start = time.perf_counter()
    keras.models.clone_model(model).set_weights(model.get_weights())
    print(json.dumps({"clone_model": time.perf_counter() - start}))


@contextmanager
def counted(model: keras.Model) -> Iterator[dict[str, collections.Counter[int]]]:
    """How often every weight of a model is read as an array, and every variable is written."""
    own = {id(weight) for weight in model.weights}
    counts = {"reads": collections.Counter[int](), "writes": collections.Counter[int]()}
    read, write = keras.ops.convert_to_numpy, keras.Variable.assign

    def reading(value: Any) -> Any:
        if id(value) in own:
            counts["reads"][id(value)] += 1
        return read(value)

    def writing(variable: keras.Variable, value: Any) -> Any:
        counts["writes"][id(variable)] += 1
        return write(variable, value)

    keras.ops.convert_to_numpy, keras.Variable.assign = reading, writing
    try:
        yield counts
    finally:
        keras.ops.convert_to_numpy, keras.Variable.assign = read, write


def table(rows: list[Row]) -> str:
    """The medians and extremes of all repeats."""
    kinds = {
        "seconds": "seconds, first call of a process",
        "clone_model": "seconds, clone_model and set_weights of Keras",
        "cpu": "seconds of processor time",
        "memory": "peak memory / size of the model",
        "reads": "reads of the weight that is read most often",
        "writes": "writes of the weight written most often",
    }
    text = f"Surgery of ResNet50, {len(rows)} processes: {machine()}\n"
    text += LINE.format(what="", median="median", least="least", most="most")
    for key, what in kinds.items():
        found = [row[key] for row in rows]
        numbers = (statistics.median(found), min(found), max(found))
        median, least, most = (f"{number:.2f}" for number in numbers)
        text += LINE.format(what=what, median=median, least=least, most=most)
    return text


def _run(part: str) -> Row:
    """What one part prints in a process of its own."""
    command = [sys.executable, __file__, "--part", part]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    row: Row = json.loads(done.stdout.strip().splitlines()[-1])
    return row


def main() -> None:
    """Run the repeats, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parts = {"examine": examine, "copy": copy}
    parser.add_argument("--part", choices=parts, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        return parts[options.part]()
    rows = [{**_run("examine"), **_run("copy")} for _ in range(options.repeats)]
    REPORT.write_text(table(rows))
    print(REPORT.read_text(), end="")


if __name__ == "__main__":
    main()
