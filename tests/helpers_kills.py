"""A sweep, a shrinking and an export of seconds, in a process that tests kill."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from helpers_sweeps import SETTINGS, build, dataset, points

import keras_structsparse as kss
from keras_structsparse.sweeps import read_run, sweep
from keras_structsparse.training.recipes import Recipe

RUN = replace(
    SETTINGS,
    recipe=Recipe(epochs=2, batch_size=32),
    path=Recipe(epochs=1, batch_size=32, ramp=0.0),
)
EPOCHS = 12


def results(folder: Path) -> dict[str, Any]:
    """What a finished process leaves, without times."""
    import keras

    network = keras.models.load_model(folder / "shrunk" / "model.keras")
    return {
        "points": points(read_run(folder / "run")),
        "lost": read_run(folder / "run").lost(),
        "plan": kss.Plan.from_json((folder / "shrunk" / "plan.json").read_text()),
        "weights": [weight.tolist() for weight in network.get_weights()],
        "history": (folder / "shrunk" / "history.json").read_text(),
        "exported": sorted(path.name for path in (folder / "shrunk" / "saved_model").iterdir()),
    }


def started(folder: Path) -> subprocess.Popen[bytes]:
    """The work in a process of its own, which goes on where another was killed."""
    script = Path(__file__)
    path = os.pathsep.join([str(script.parent), *sys.path])
    return subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def main(folder: str) -> None:
    """Sweep, shrink the dense network of the sweep, and export the smaller one."""
    import keras
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    data = dataset()
    run = sweep(build, data, RUN, Path(folder, "run"))
    dense, _ = run.dense_and_sparse()
    model = keras.models.load_model(dense[0].model)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    keras.utils.set_random_seed(0)
    result = kss.shrink(
        model,
        data.train.arrays,
        data.validation.arrays,
        multiply_adds=0.5,
        epochs=EPOCHS,
        workdir=Path(folder, "work"),
        verbose=0,
    )
    result.save(Path(folder, "shrunk"))


if __name__ == "__main__":
    main(*sys.argv[1:])
