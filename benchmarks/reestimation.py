"""What it is worth to estimate the statistics of batch normalisations anew after surgery.

    python benchmarks/reestimation.py RUN --data-dir DIR > benchmarks/results/reestimation.txt

RUN is a sweep over Fashion-MNIST with a path, such as that of `python benchmarks/pruned.py make
fashion-mnist`: it keeps the trained network of every alpha. Each is cut at some thresholds; the
statistics are estimated from so many training images; nothing is trained. The accuracies are those
of the validation split.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from runs import machine, split

import keras_structsparse as kss
from keras_structsparse.data import datasets
from keras_structsparse.errors import DeadNetworkError
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.sweeps import read_run
from keras_structsparse.training.fit import accuracy

TAUS = (0.0, 0.01, 0.03, 0.1, 0.2)
IMAGES = (256, 1024, 4096)


def main() -> None:
    """Cut, estimate, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="the run directory")
    parser.add_argument("--data-dir", help="where fashion_mnist lies or will be built by TFDS")
    options = parser.parse_args()
    run = read_run(options.run)
    data = datasets.load("fashion_mnist", options.data_dir, validation=0.1, seed=0)
    print(f"{machine()}, validation accuracy in per cent")
    heads = "".join(f"{images:>7,}" for images in IMAGES)
    print(f"alpha   seed  tau    multiply-adds  as trained  from so many images:{heads}")
    for trial in sorted(run.trials(), key=lambda trial: (trial.alpha, trial.seed)):
        state = run.start(trial)
        if state is None:
            continue
        for tau in TAUS:
            try:
                model = kss.prune(state.model, tau=tau)
            except DeadNetworkError:
                break
            share = kss.profile(model).multiply_adds / state.whole
            held = split(data.validation)
            anew = [
                accuracy(kss.reestimate_batch_norm(copy_model(model), data.train.x[:n]), held)
                for n in IMAGES
            ]
            cells = "".join(f"{100 * value:>7.2f}" for value in anew)
            print(
                f"{trial.alpha:<7g} {trial.seed:>4}  {tau:<5g} {share:>13.1%} "
                f"{100 * accuracy(model, held):>11.2f}  {'':<20}{cells}",
                flush=True,
            )


if __name__ == "__main__":
    main()
