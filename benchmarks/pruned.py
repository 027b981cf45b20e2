"""Make the pruned networks that come with the package, or check that they do what their cards say.

    python benchmarks/pruned.py make digits --runs DIR
    python benchmarks/pruned.py make fashion-mnist --runs DIR --data-dir DIR
    python benchmarks/pruned.py check --data-dir DIR

`make` runs `structsparse sweep`, which goes on where it was stopped, and then `structsparse choose`
for every share of the multiply-adds: the network of the highest validation accuracy among those
that have at most so many. Networks and cards go to models/pruned. `check` computes multiply-adds
and accuracy anew, on the whole test split of each data set that is there.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from keras_structsparse import models
from keras_structsparse._files import write_text
from keras_structsparse.cli import app
from keras_structsparse.data import datasets
from keras_structsparse.errors import DatasetError
from keras_structsparse.models.card import Card
from keras_structsparse.models.packaged import FOLDER
from keras_structsparse.profiling.profile import profile
from keras_structsparse.training.fit import accuracy


@dataclass(frozen=True)
class Family:
    """A sweep, and the networks to take from it.

    Attributes:
        prefix: How their names begin.
        model: The base.
        sweep: Words behind ``structsparse sweep``.
        percents: At most so many per cent of the base's multiply-adds, for one network each.
        backend: The backend that trains, by its name; None for Keras' own choice.
    """

    prefix: str
    model: str
    sweep: str
    percents: tuple[int, ...]
    backend: str | None = None


FAMILIES = {
    "digits": Family(
        "digits-residual",
        "digits-residual",
        "--dataset digits --validation 0.2 --alphas 1e-2,2e-2,4e-2 --taus 1e-3,3e-2 --reweight 0.1 "
        "--weights multiply_adds --epochs 18 --path-epochs 8 --tuning-epochs 10 --batch-size 32 "
        "--tuning-rate 0.1",
        (40, 15),
    ),
    "fashion-mnist": Family(
        "fashion-mnist-square",
        "fashion-mnist-residual",
        "--dataset fashion_mnist --validation 0.1 --alphas 4e-3,8e-3,1.6e-2,3.2e-2 --taus 1e-3 "
        "--reweight 0.1 --weights multiply_adds --epochs 8 --path-epochs 4 --shrink-every 1 "
        "--tuning-epochs 3 --batch-size 128",
        (60, 40, 25, 10),
        backend="jax",
    ),
}


def make(family: Family, runs: Path, data_dir: str | None) -> None:
    """Sweep, choose, and put networks and cards beside each other."""
    where = [] if data_dir is None else ["--data-dir", data_dir]
    words = [*shlex.split(sweep_of(family)), "--out", str(runs / family.prefix), *where]
    # In a process of its own, for the backend; the networks are exported with TensorFlow.
    backend = {} if family.backend is None else {"KERAS_BACKEND": family.backend}
    command = [sys.executable, "-m", "keras_structsparse", *words]
    subprocess.run(command, env={**os.environ, **backend}, check=True)
    choose(family, runs)


def sweep_of(family: Family) -> str:
    """The words of the sweep."""
    return f"sweep --model {family.model} {family.sweep}"


def choose(family: Family, runs: Path) -> None:
    """Take the networks of a finished sweep into the package."""
    whole = profile(models.build(family.model)).multiply_adds
    for percent in family.percents:
        name = f"{family.prefix}-{percent}pc"
        wish = ("--max-multiply-adds", str(whole * percent // 100))
        structsparse("choose", str(runs / family.prefix), *wish, "--out", str(runs / name))
        prefix = "" if family.backend is None else f"KERAS_BACKEND={family.backend} "
        commands = (
            f"{prefix}structsparse {sweep_of(family)} --out run",
            f"structsparse choose run {' '.join(wish)} --out chosen",
        )
        install(runs / name, name, commands)


def structsparse(*words: str) -> None:
    """Run a command of the package."""
    app(words, standalone_mode=False)


def install(chosen: Path, name: str, commands: Sequence[str]) -> None:
    """Copy a network that was handed over, with its card, into the package."""
    card = Card.from_json((chosen / "card.json").read_text("utf-8"))
    FOLDER.mkdir(exist_ok=True)
    shutil.copyfile(chosen / "model.keras", FOLDER / f"{name}.keras")
    write_text(FOLDER / f"{name}.json", replace(card, commands=tuple(commands)).to_json())
    print(f"{name}: {card.summary}")


def check(data_dir: str | None) -> int:
    """Compare every network with its card; the number of those that differ."""
    wrong = 0
    for name, card in models.cards().items():
        model = models.load(name)
        # The label of the data set goes on with the share of images for validation.
        source = card.dataset.partition(",")[0]
        try:
            test = datasets.load(source, data_dir if source != "digits" else None).test
        except DatasetError as error:
            print(f"{name}: not checked, {error}")
            continue
        found = (profile(model).multiply_adds, accuracy(model, (test.x, test.y)))
        same = found[0] == card.multiply_adds and abs(found[1] - card.accuracy) * len(test) < 1.5
        wrong += not same
        expected = (card.multiply_adds, card.accuracy)
        print(f"{name}: {'as its card says' if same else f'expected {expected}'}, {found}")
    return wrong


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=["make", "check"])
    parser.add_argument("family", nargs="?", choices=FAMILIES, help="for make")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the sweeps")
    parser.add_argument("--data-dir", help="where fashion_mnist lies or will be built by TFDS")
    options = parser.parse_args()
    if options.command == "check":
        sys.exit(min(check(options.data_dir), 1))
    if options.family is None:
        parser.error(f"make: expected one of {', '.join(FAMILIES)}")
    make(FAMILIES[options.family], options.runs, options.data_dir)


if __name__ == "__main__":
    main()
