"""What would bring back weights from before a target was met is refused when training starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_training import compiled, images, network
from keras import callbacks as K
from keras import optimizers as O

import keras_structsparse as kss


class Stopping(K.EarlyStopping):
    """A subclass of a user."""


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "best weights": (
        lambda f: K.EarlyStopping("loss", restore_best_weights=True),
        "restore_best_weights",
    ),
    "a subclass": (lambda f: Stopping(restore_best_weights=True), "Stopping; .*restore_best"),
    "best file": (
        lambda f: K.ModelCheckpoint(str(f / "a.keras"), "loss", save_best_only=True),
        "save_best",
    ),
    "backup": (lambda f: K.BackupAndRestore(str(f)), "BackupAndRestore; .*after fit"),
    "a second one": (lambda f: kss.TargetMultiplyAdds(0.6), "several"),
}
ALLOWED: dict[str, Callable[[Path], Any]] = {
    "stopping": lambda f: K.EarlyStopping("loss"),
    "last file": lambda f: K.ModelCheckpoint(str(f / "a.keras")),
}


def attached(optimizer: Any) -> keras.Model:
    model = kss.attach(network(), kss.KernelSize(0.02))
    return compiled(model, optimizer, run_eagerly=True)


def sgd(**options: Any) -> kss.Proximal:
    return kss.Proximal(O.SGD(0.1, **options))


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", REFUSED)
def test_callbacks_are_refused_wherever_they_stand(name: str, first: bool, tmp_path: Path) -> None:
    make, words = REFUSED[name]
    model, pair = attached(sgd()), [make(tmp_path), kss.TargetMultiplyAdds(0.5)]
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"callbacks: expected .*Received: .*{words}"):
        model.fit(*images(), verbose=0, callbacks=pair if first else pair[::-1])
    assert all(map(np.array_equal, before, model.get_weights()))


@pytest.mark.parametrize("name", ALLOWED)
def test_other_callbacks_are_not(name: str, tmp_path: Path) -> None:
    """The control."""
    model = attached(sgd())
    target = kss.TargetMultiplyAdds(0.5, tolerance=0.2)
    model.fit(*images(), verbose=0, callbacks=[ALLOWED[name](tmp_path), target])
    assert target.reached is not None


def test_the_same_callbacks_without_a_target_are_not(tmp_path: Path) -> None:
    callbacks = [make(tmp_path / name) for name, (make, _) in REFUSED.items()][:4]
    attached(sgd(use_ema=True)).fit(
        *images(), verbose=0, callbacks=callbacks, validation_data=images()
    )


def scaled(**options: Any) -> Any:
    return O.LossScaleOptimizer(sgd(**options))


@pytest.mark.parametrize("wrap", [sgd, scaled, O.SGD])
def test_averages_are_refused(wrap: Callable[..., Any]) -> None:
    model = attached(wrap(use_ema=True))
    with pytest.raises(ValueError, match=r"averages beside TargetMultiplyAdds.*Set use_ema=False"):
        model.fit(*images(), verbose=0, callbacks=[kss.TargetMultiplyAdds(0.5)])


class OwnStep(keras.Model):
    """A model with a training step of its own."""

    def train_step(self, *arguments: Any) -> Any:
        return super().train_step(*arguments)


def test_a_training_step_that_surgery_would_lose_is_refused() -> None:
    plain = kss.attach(network(), kss.KernelSize(0.02))
    model = compiled(OwnStep(plain.input, plain.output), sgd())
    with pytest.raises(ValueError, match=r"OwnStep with its own train_step"):
        kss.fit_shrinking(model, *images(), shrink_every=1)
