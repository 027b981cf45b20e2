"""kss.shrink to a share of the time, as ONNX Runtime and LiteRT measure it.

    python benchmarks/latency_budgets.py --data-dir DIR
    python benchmarks/latency_budgets.py --data-dir DIR --networks mobilenet_v2

benchmarks/pretrained.py says what DIR holds, and how the dense network is fine-tuned. Then
`kss.shrink` has 20 epochs in all and its default settings: with `latency=`, for a batch of one on
one thread, and beside it with `multiply_adds=`. Both networks of a run are timed in turns at the
end, a hundred times, on both runtimes. The accuracy is that of the 1,500 photographs of the test.
Finished runs are kept in benchmarks/results/latency_budgets.jsonl.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import keras
import pretrained
from runs import RESULTS, Results, Row, groups, machine

import keras_structsparse as kss
from keras_structsparse.export.runtimes import Runtime

RUNTIMES = ("onnxruntime", "litert")
TIMES, WORK = (0.7, 0.5, 0.35), (0.6, 0.4)
"""Shares of the time, and of the multiply-adds."""

REPEATS = 100
LINE = (
    "{budget:<16} {share:>6} {onnxruntime:>12} {litert:>7} {m_adds:>7} {dense:>6} {after:>6} "
    "{drop:>5} {seeds:>5} {seconds:>8}\n"
)


def settings(options: argparse.Namespace, network: str) -> list[Row]:
    """All runs of a network."""
    budgets = [(runtime, share) for runtime in RUNTIMES for share in TIMES]
    budgets += [("multiply_adds", share) for share in WORK]
    return [
        {"network": network, "budget": budget, "share": share, "seed": seed}
        for seed in range(options.seeds)
        for budget, share in budgets
    ]


def run(setting: Row, parts: pretrained.Parts, options: argparse.Namespace) -> Row:
    """One call of shrink."""
    model = pretrained.dense(parts, options.data_dir, setting["network"], setting["seed"])
    keras.utils.set_random_seed(setting["seed"])
    budget, share = setting["budget"], setting["share"]
    in_time = budget in RUNTIMES
    start = time.perf_counter()
    result = kss.shrink(
        model,
        parts["train"],
        parts["validation"],
        epochs=pretrained.EPOCHS,
        batch_size=pretrained.SHRINK_BATCH,
        latency=kss.Latency(share=share, runtime=budget) if in_time else None,
        multiply_adds=None if in_time else share,
    )
    seconds = round(time.perf_counter() - start)
    result.model.compile(loss=model.loss, metrics=["accuracy"])
    return {
        **setting,
        **{name: times(name, model, result.model) for name in RUNTIMES},
        "multiply_adds": result.comparison.multiply_adds_fraction,
        "dense": pretrained.accuracy(model, parts["test"]),
        "after": pretrained.accuracy(result.model, parts["test"]),
        "seconds": seconds,
    }


def times(runtime: str, before: keras.Model, after: keras.Model) -> tuple[float, float]:
    """Milliseconds before and after, the medians of runs in turns."""
    rows = Runtime(runtime).latency({"before": before, "after": after}, REPEATS)
    return rows[0].median, rows[1].median


def table(rows: Sequence[Row]) -> str:
    """Shares of the time and the accuracy, means over the seeds in per cent."""
    text = f"kss.shrink to a share of the time, batch 1, one thread: {machine()}\n"
    for (network,), own in groups(rows, "network").items():
        names = ("budget", "share", *RUNTIMES, "m_adds", "dense", "after", "drop")
        text += f"\n{network} on Imagenette, 3,000 photographs\n"
        text += LINE.format(**{name: name for name in (*names, "seeds", "seconds")})
        for (budget, share), found in groups(own, "budget", "share").items():
            means = {
                "m_adds": statistics.fmean(100 * row["multiply_adds"] for row in found),
                "dense": statistics.fmean(100 * row["dense"] for row in found),
                "after": statistics.fmean(100 * row["after"] for row in found),
                "drop": statistics.fmean(100 * (row["dense"] - row["after"]) for row in found),
            }
            for runtime in RUNTIMES:
                shares = (100 * row[runtime][1] / row[runtime][0] for row in found)
                means[runtime] = statistics.fmean(shares)
            text += LINE.format(
                budget=budget,
                share=f"{100 * share:.0f}",
                seeds=len(found),
                seconds=round(statistics.median(row["seconds"] for row in found)),
                **{name: f"{value:.1f}" for name, value in means.items()},
            )
    return f"{text}\nonnxruntime, litert: the share of the time there, as measured at the end\n"


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=pretrained.Path, required=True)
    names = list(pretrained.NETWORKS)
    parser.add_argument("--networks", nargs="+", default=names, choices=names)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    results = Results(RESULTS / "latency_budgets.jsonl")
    for network in options.networks:
        missing = list(results.missing(settings(options, network)))
        parts = pretrained.load(options.data_dir, network) if missing else {}
        for setting in missing:
            results.add(run(setting, parts, options))
    text = table(results.rows)
    (RESULTS / "latency_budgets.txt").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
