"""Surgery on every network of keras.applications and KerasHub's convolutional backbones.

    python benchmarks/applications.py

Each network gets random weights with biases and normalisation offsets, and a random plan: three
kernels in ten are removed, the others get random sizes. The pruned network is compared with the
masked one in float64, with a control. Every network runs in a process of its own; finished ones
are kept in benchmarks/results/applications.jsonl, so that a run that was stopped goes on. The
table is docs/applications.md. Needs keras-hub for the backbones.
"""

from __future__ import annotations

import argparse
import collections
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import planting
from architectures import builders
from runs import RESULTS, Results, Row, in_processes, machine, print_row

from keras_structsparse.errors import ModelError
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.inlining import opened
from keras_structsparse.profiling.profile import profile
from keras_structsparse.surgery import prune
from keras_structsparse.surgery.plans import Plan, masked
from keras_structsparse.surgery.provenance import notes
from keras_structsparse.surgery.verification import verify

LINES = RESULTS / "applications.jsonl"
TABLE = Path(__file__).parents[1] / "docs" / "applications.md"
STATUS = Path("/proc/self/status")

KEPT = re.compile(r"layer '(?P<name>.+)' \((?P<kind>\w+)\): kept as it is: (?P<reason>.+)")


# --- one network, in this process ---


def examine(name: str) -> Iterator[Row]:
    """What is found out about a network, step by step: a failure keeps the steps before it."""
    keras.utils.set_random_seed(0)
    model = opened(builders()[name]())
    yield {"builds": True, "params": model.count_params()}
    planting.animate(model)
    plan = planting.random_plan(model)
    yield {"kernels": sum(map(len, plan.sizes.values()))}
    if not plan.sizes:
        raise ModelError("all its convolutions are inside layers that cannot be opened")
    pruned, cost = measured(model, plan)
    yield cost
    yield {"before": profile(model).multiply_adds, "after_auto": profile(pruned).multiply_adds}
    yield blocking(model, plan, pruned)
    yield {"after": profile(prune(model, plan, realize="split")).multiply_adds}
    yield dict(zip(("constant", "carriers"), planting.constants(pruned), strict=True))
    found = verify(model, plan, realize="split", samples=4)
    yield {"error": found.error, "control": found.control, "exact": found.passed}


def measured(model: keras.Model, plan: Plan) -> tuple[keras.Model, Row]:
    """Prune, with the seconds it takes and the most memory over what the model itself takes."""
    size = sum(math.prod(weight.shape) for weight in model.weights) * 4
    Path("/proc/self/clear_refs").write_text("5")
    before, start, used = _status("VmRSS"), time.perf_counter(), time.process_time()
    pruned = prune(model, plan)
    took = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used}
    return pruned, {**took, "memory": (_status("VmHWM") - before + size) / size}


def _status(key: str) -> int:
    """Bytes of memory by Linux' own account."""
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith(key)]
    return 1024 * int(line.split()[1])


def blocking(model: keras.Model, plan: Plan, pruned: keras.Model) -> Row:
    """What the plan leaves to do, and which layers without a rule keep how many channels."""
    reference = masked(model, plan)
    network = functional_graph.read(reference)
    live = planting.liveness(network)
    calls = {call.name: call for call in network.calls}
    kept: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
    for found in filter(None, map(KEPT.match, notes(pruned))):
        call = calls.get(found["name"])
        channels = [int((~live[i]).sum()) for i in call.inputs] if call else [0]
        entry = kept[f"{found['kind']}: {found['reason']}"]
        entry[0] += 1
        entry[1] += sum(channels)
    return {"planted": round(planting.planted(reference, plan)), "kept": kept}


# --- all of them ---


HEAD = """# Surgery on published architectures

Made by `python benchmarks/applications.py` ({machine}). Random weights with biases and
normalisation offsets; a random plan removes three kernels in ten and gives the others random
sizes; 32x32 images, 75x75 for Inception and Xception; KerasHub's backbones are small ones of
each kind of block, their composite layers opened by `kss.opened`.

- **difference**: pruned against masked in float64, at inference and in training mode (`kss.verify`), relative to the largest output; **control**:
  the same at inference with one more live kernel removed. Exact: at most 1e-10, the control a thousand
  times more.
- **multiply-adds**: millions before; per cent left with one convolution per kernel size
  (`realize="split"`), as the cost model decides (`"auto"`), and what eq. (10) gives for the plan
  (live inputs times kernel sizes, measured on the masked network).
- **constants**: channels that convolutions still compute though they do not depend on the input.
  **carriers**: such channels that padded convolutions read. **kept**: layers that surgery left
  unchanged.
- Rows are of the versions of this package that they were made with; `--again` makes all rows again.
- **seconds**: `prune` alone, float32, on a machine that was busy with other work. **CPU**: the seconds
  of processor time in it. **memory**: its peak over the size of the model, where that
  is above a million parameters.

| network | exact | difference | control | M before | split % | auto % | eq. (10) % | constants | carriers | kept | seconds | CPU | memory |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""  # noqa: E501


def table(rows: list[Row]) -> str:
    """The results as a document."""
    text = HEAD.format(machine=machine()) + "\n".join(map(_line, rows)) + "\n"
    failures = [f"- {row['model']}: {row['failure']}" for row in rows if "failure" in row]
    if failures:
        text += "\nNot pruned, or not checked:\n\n" + "\n".join(failures) + "\n"
    return text + "\n" + ranking(rows)


def _line(row: Row) -> str:
    if "after" not in row:
        return f"| {row['model']} | see below |" + " |" * 12
    parts = [100 * row[key] / row["before"] for key in ("after", "after_auto", "planted")]
    verdict = {"True": "yes", "False": "**NO**"}.get(str(row.get("exact")), "see below")
    cells = [
        verdict,
        f"{row.get('error', float('nan')):.0e}",
        f"{row.get('control', float('nan')):.0e}",
        f"{row['before'] / 1e6:.1f}",
        *(f"{part:.1f}" for part in parts),
        str(row.get("constant", "")),
        str(row.get("carriers", "")),
        str(sum(calls for calls, _ in row["kept"].values())),
        f"{row['seconds']:.1f}",
        f"{row['cpu']:.1f}" if "cpu" in row else "",
        f"{row['memory']:.1f}" if row["params"] > 1e6 else "",
    ]
    return f"| {row['model']} | {' | '.join(cells)} |"


def ranking(rows: list[Row]) -> str:
    """The layers without a rule, and how many constant channels they keep, in all networks."""
    total: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0, 0])
    for row in rows:
        for kind, (calls, channels) in row.get("kept", {}).items():
            counts = total[re.sub(r"\[.*\]|\(.*\)|axis -?\d", "...", kind)]
            for index, number in enumerate((channels, calls, 1)):
                counts[index] += number
    lines = [
        f"| {kind} | {channels} | {calls} | {models} |"
        for kind, (channels, calls, models) in sorted(total.items(), key=lambda x: -x[1][0])
    ]
    head = "## Layers left unchanged\n\n| layer | constant channels read | calls | networks |\n"
    return head + "| --- | --- | --- | --- |\n" + "\n".join(lines) + "\n"


def ordered(rows: list[Row]) -> list[Row]:
    """The results in the order of the networks."""
    order = list(builders())
    return sorted(rows, key=lambda row: order.index(row["model"]))


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only these networks")
    parser.add_argument("--again", action="store_true", help="forget what was found before")
    parser.add_argument("--examine", help=argparse.SUPPRESS)
    parser.add_argument("--table-only", action="store_true")
    options = parser.parse_args()
    if options.examine:
        return print_row({"model": options.examine}, examine(options.examine))
    names, results = options.names or list(builders()), Results(LINES)
    if options.again:
        results.forget({"model": names})
    if not options.table_only:
        in_processes(results, "model", names, [__file__, "--examine"])
    TABLE.write_text(table(ordered(results.rows)))


if __name__ == "__main__":
    main()
