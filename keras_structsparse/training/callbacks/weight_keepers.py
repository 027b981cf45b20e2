"""What brings back weights of other epochs, and does not go with a target or with surgery."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_structsparse import _keras_compat

Refusals = Mapping[type, tuple[Callable[[Any], bool], str]]
"""By type of a callback: whether it is refused, and why, with what to do instead."""

BESIDE_TARGET: Refusals = {
    keras.callbacks.EarlyStopping: (
        lambda callback: callback.restore_best_weights,
        "the best weights may be from before the target was met; set restore_best_weights=False",
    ),
    keras.callbacks.ModelCheckpoint: (
        lambda callback: callback.save_best_only,
        "the best network may be from before the target was met; set save_best_only=False, or save "
        "the model after fit",
    ),
    keras.callbacks.BackupAndRestore: (
        lambda callback: True,
        "it restores the weights but not the state of the search; save the model after fit, and "
        "start an interrupted training again",
    ),
    keras.callbacks.SwapEMAWeights: (
        lambda callback: True,
        "averages do not keep removed groups at zero; leave it out",
    ),
}


def check(callbacks: Sequence[keras.callbacks.Callback], refusals: Refusals, expected: str) -> None:
    """Refuse callbacks.

    Args:
        callbacks: The callbacks of a training.
        refusals: Which of them are refused.
        expected: What the error says was expected.

    Raises:
        ValueError: One of them is refused.
    """
    for callback in callbacks:
        for kind, (refused, reason) in refusals.items():
            if isinstance(callback, kind) and refused(callback):
                raise ValueError(
                    f"callbacks: expected {expected}. Received: {type(callback).__name__}; {reason}"
                )


def uses_averages(optimizer: Any) -> bool:
    """Whether an optimizer, or one that it wraps, keeps moving averages of the weights."""
    if optimizer is None:
        return False
    inner = getattr(optimizer, "inner_optimizer", getattr(optimizer, "optimizer", None))
    return bool(getattr(optimizer, "use_ema", False)) or uses_averages(inner)


def check_beside_target(target: keras.callbacks.Callback, model: keras.Model) -> None:
    """Check that nothing else changes the weights of a training with a target.

    Args:
        target: The callback that meets the target.
        model: The model that is trained.

    Raises:
        ValueError: A callback of the training, or the optimizer, keeps weights of other epochs; or
            there are two targets.
    """
    beside = _keras_compat.callbacks_of_fit()
    name = type(target).__name__
    check(beside, BESIDE_TARGET, f"callbacks beside {name} that leave the last weights")
    if sum(isinstance(each, type(target)) for each in beside) > 1:
        raise ValueError(f"callbacks: expected one {name}. Received: several")
    if uses_averages(getattr(model, "optimizer", None)):
        raise ValueError(
            f"optimizer: expected one without averages beside {name}, since they replace the "
            "weights and removed groups would come back. Received: use_ema=True. Set "
            "use_ema=False, or train with a fixed alpha: under Proximal alone averages are sparse."
        )
