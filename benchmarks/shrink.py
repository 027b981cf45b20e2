"""kss.shrink on pretrained networks and real photographs: what the budgets cost.

    python benchmarks/shrink.py --data-dir DIR
    python benchmarks/shrink.py --data-dir DIR --networks mobilenet_v2
    python benchmarks/shrink.py --data-dir DIR --all     # all photographs, one seed

benchmarks/pretrained.py says what DIR holds, and how the dense network is fine-tuned. Then
`kss.shrink(model, train, validation, multiply_adds=SHARE)` with its default settings has 20 epochs
in all. The accuracy is that of the 1,500 photographs of the test, which the shrinking does not
see. Finished runs are kept in benchmarks/results/shrink.jsonl.
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

LINE = "{share:>7} {left:>7} {dense:>7} {after:>7} {drop:>7} {worst:>7} {seeds:>5} {seconds:>9}\n"


def run(setting: Row, parts: pretrained.Parts, options: argparse.Namespace) -> Row:
    """One call of shrink."""
    seed = setting["seed"]
    model = pretrained.dense(parts, options.data_dir, setting["network"], seed, options.all)
    keras.utils.set_random_seed(seed)
    start = time.perf_counter()
    result = kss.shrink(
        model,
        parts["train"],
        parts["validation"],
        multiply_adds=setting["share"],
        epochs=pretrained.EPOCHS,
        batch_size=pretrained.SHRINK_BATCH,
    )
    seconds = round(time.perf_counter() - start)
    result.model.compile(loss=model.loss, metrics=["accuracy"])
    return {
        **setting,
        "left": result.comparison.multiply_adds_fraction,
        "dense": pretrained.accuracy(model, parts["test"]),
        "after": pretrained.accuracy(result.model, parts["test"]),
        "seconds": seconds,
        "history": [round(value, 4) for value in result.history["val_accuracy"]],
    }


def table(rows: Sequence[Row]) -> str:
    """Mean over the seeds, in per cent; the worst drop of a seed."""
    text = f"kss.shrink, default settings, {pretrained.EPOCHS} epochs: {machine()}\n"
    for (network, name), own in groups(rows, "network", "photographs").items():
        names = ("share", "left", "dense", "after", "drop", "worst", "seeds", "seconds")
        text += f"\n{network} on Imagenette, {name} photographs\n"
        text += LINE.format(**{key: key for key in names})
        for (share,), found in sorted(groups(own, "share").items(), reverse=True):
            drops = [100 * (row["dense"] - row["after"]) for row in found]
            means = {k: statistics.fmean(100 * r[k] for r in found) for k in names[1:4]}
            text += LINE.format(
                share=f"{100 * share:.0f}",
                **{key: f"{value:.1f}" for key, value in means.items()},
                drop=f"{statistics.fmean(drops):.1f}",
                worst=f"{max(drops):.1f}",
                seeds=len(found),
                seconds=round(statistics.median(row["seconds"] for row in found)),
            )
    return text


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    pretrained.add_options(parser)
    parser.add_argument("--all", action="store_true", help="all photographs, one seed")
    options = parser.parse_args()
    results = Results(RESULTS / "shrink.jsonl")
    name, seeds = ("all", 1) if options.all else ("3,000", options.seeds)
    for network in options.networks:
        settings = [
            {"network": network, "photographs": name, "share": share, "seed": seed}
            for seed in range(seeds)
            for share in options.shares
        ]
        missing = list(results.missing(settings))
        parts = pretrained.load(options.data_dir, network, options.all) if missing else {}
        for setting in missing:
            results.add(run(setting, parts, options))
    text = table(results.rows)
    (RESULTS / "shrink.txt").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
