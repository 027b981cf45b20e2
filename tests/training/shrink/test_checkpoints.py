"""Shrinkings that are killed and continued."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_shrink import head, randomize
from helpers_shrinking import CROSS, Killed, easy, ready, shrunk, values
from keras import layers as L

import keras_structsparse as kss
from keras_structsparse.training.shrink.checkpoints import PRUNED, STATE

pytestmark = pytest.mark.filterwarnings("ignore:shrink. accuracy changed:UserWarning")


class Count(keras.callbacks.Callback):
    """The epochs that began."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[int] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epochs.append(epoch)


def killed_at(folder: Path, epoch: int, at_batch: bool = False, **options: Any) -> None:
    model, data = ready("dense")
    with pytest.raises(KeyboardInterrupt):
        shrunk(
            model,
            data,
            data,
            epochs=6,
            workdir=folder,
            callbacks=[Killed(epoch, at_batch)],
            **options,
        )


@pytest.mark.parametrize(
    ("epoch", "at_batch"), [(0, False), (1, True), (2, False), (3, True), (5, False)]
)
def test_it_goes_on_where_it_was_killed(tmp_path: Path, epoch: int, at_batch: bool) -> None:
    folder = tmp_path / "work"
    killed_at(folder, epoch, at_batch)
    model, data = ready("dense")
    count = Count()
    result = shrunk(model, data, data, epochs=6, workdir=folder, callbacks=[count])
    assert count.epochs == list(range(epoch, 6))  # Only finished epochs are stored.
    assert len(result.history["loss"]) == len(result.history["val_loss"]) == 6
    assert len(result.history["share"]) == 3
    assert result.comparison.multiply_adds_fraction <= 0.5
    again = Count()
    same = shrunk(model, data, data, epochs=6, workdir=folder, callbacks=[again])
    assert again.epochs == []  # All is over.
    assert same.history == result.history
    assert same.plan.sizes == result.plan.sizes


def drops() -> keras.Model:
    """A network that draws random numbers in training, with a normalisation."""
    x = inputs = keras.Input((8, 8, 2))
    for name in "ab":
        x = L.Conv2D(6, 3, padding="same", name=name)(x)
        x = L.Dropout(0.3)(L.ReLU()(L.BatchNormalization()(x)))
    return randomize(keras.Model(inputs, head(x)))


def killed_and_continued(
    folder: Path, kills: Sequence[tuple[int, bool]], seed: int = 0
) -> tuple[Any, Any, Any]:
    """What is left of ten epochs: the history, the sizes and the weights."""
    keras.utils.set_random_seed(seed)
    model = drops()
    model.compile(keras.optimizers.Adam(0.01), CROSS, metrics=["accuracy"], run_eagerly=True)
    data = easy(model)
    options = {"epochs": 10, "batch_size": 20, "workdir": folder}
    for epoch, at_batch in kills:
        keras.utils.set_random_seed(seed)
        with pytest.raises(KeyboardInterrupt):
            shrunk(model, data, data, callbacks=[Killed(epoch, at_batch)], **options)
    keras.utils.set_random_seed(seed)
    result = shrunk(model, data, data, **options)
    return result.history, result.plan.sizes, values(result.model.weights)


def same(left: tuple[Any, Any, Any], right: tuple[Any, Any, Any]) -> bool:
    pairs = zip(left[2], right[2], strict=True)
    return left[:2] == right[:2] and all(np.array_equal(a, b) for a, b in pairs)


def test_it_ends_as_one_that_was_not_killed(tmp_path: Path) -> None:
    whole = killed_and_continued(tmp_path / "whole", [])
    kills = [(1, False), (3, True), (4, True), (6, False), (9, True)]
    for name, own in (("often", kills), ("once", kills[2:3])):
        assert same(killed_and_continued(tmp_path / name, own), whole), name
    assert not same(killed_and_continued(tmp_path / "control", [], seed=1), whole)


def test_without_a_kill_it_is_the_same_as_without_a_directory(tmp_path: Path) -> None:
    found = []
    for folder in (None, tmp_path / "work"):
        model, data = ready("dense")
        keras.utils.set_random_seed(3)
        found.append(shrunk(model, data, data, epochs=3, workdir=folder))
    assert found[0].history == found[1].history
    assert found[0].plan.sizes == found[1].plan.sizes


OTHERS: dict[str, dict[str, Any]] = {
    "budget": {"multiply_adds": 0.4},
    "method": {"method": kss.ShrinkMethod(distillation=0.3)},
    "epochs": {"epochs": 7},
    "batch_size, steps": {"batch_size": 12},
    "optimizer": {"optimizer": keras.optimizers.SGD(0.1)},
}


def test_another_model_or_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    killed_at(folder, 1)
    model, data = ready("dense")
    before = (folder / STATE).read_bytes()
    for name, options in OTHERS.items():
        with pytest.raises(kss.OutputError, match="workdir: expected") as error:
            shrunk(model, data, data, **{"epochs": 6, "workdir": folder, **options})
        for part in name.split(", "):
            assert part in str(error.value).split("belongs to another ")[1]
    model.layers[0].bias.assign(model.layers[0].bias + 1.0)
    with pytest.raises(kss.OutputError, match="belongs to another model"):
        shrunk(model, data, data, epochs=6, workdir=folder)
    model, data = ready("dense")
    model.compile("adam", CROSS, metrics=["mae"])
    with pytest.raises(kss.OutputError, match="belongs to another loss and metrics"):
        shrunk(model, data, None, epochs=6, workdir=folder)
    assert (folder / STATE).read_bytes() == before


def test_a_foreign_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    model, data = ready("dense")
    for budget in ({"multiply_adds": 0.5}, {"max_drop": 0.1}):
        with pytest.raises(kss.OutputError, match=r"workdir: expected .*thesis.tex"):
            shrunk(model, data, data, workdir=tmp_path, **budget)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def without(path: Path, key: str) -> None:
    with np.load(path) as stored:
        arrays = dict(stored)
    head = json.loads(str(arrays["head"]))
    del head[key]
    np.savez(path, **{**arrays, "head": np.array(json.dumps(head))})


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "noise": lambda path: path.write_bytes(b"PK" + bytes(range(200))),
    "text": lambda path: path.write_text("{}"),
    "no count": lambda path: without(path, "count"),
    "no stage": lambda path: without(path, "stage"),
    "no format": lambda path: without(path, "format"),
}


def test_a_damaged_state_says_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    killed_at(folder, 1)
    model, data = ready("dense")
    good = (folder / STATE).read_bytes()
    for damage in DAMAGES.values():
        (folder / STATE).write_bytes(good)
        damage(folder / STATE)
        with pytest.raises(kss.OutputError, match=r"workdir: expected the state .*Remove the dir"):
            shrunk(model, data, data, epochs=6, workdir=folder)


def test_a_damaged_network_says_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    killed_at(folder, 4)
    model, data = ready("dense")
    (folder / PRUNED).write_bytes(b"PK")
    with pytest.raises(kss.OutputError, match=r"(?s)expected the rebuilt .*Remove the dir"):
        shrunk(model, data, data, epochs=6, workdir=folder)
