"""Trains a tiny network in one cell of `docs/keras-habits.md`, and checks what must hold there."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import keras
import numpy as np
from helpers_habits import BATCH, EPOCHS, EXAMPLES, HABITS, LOSS, Habit, data, network, proximal

import keras_structsparse as kss
from keras_structsparse.data.datasets import Dataset, Split
from keras_structsparse.regularizers.alpha import distinct_alphas
from keras_structsparse.training.recipes import Recipe

Array = Any
K = keras.callbacks

REFUSALS = (ValueError, TypeError, kss.StructSparseError)

ALPHAS: Mapping[str, Callable[[], Any]] = {
    "`KernelSize`": lambda: kss.KernelSize(0.04),
    "`KernelCount`": lambda: kss.KernelCount(0.08),
    "`MultiplyAdds`": lambda: kss.MultiplyAdds(3e-4, reweight=0.1),
}
WAYS = (*ALPHAS, "`TargetMultiplyAdds`", "`fit_shrinking`", "`sweep`")
TARGET = 0.6


# --- what must hold ---


def array(variable: Any) -> Array:
    return np.array(keras.ops.convert_to_numpy(variable))


def check_loss_is_that_of_the_data(model: keras.Model) -> None:
    """Also with an alpha that would show."""
    x, y = data()
    for alpha in distinct_alphas(kss.regularizers_of(model).values()):
        alpha.assign(1.0)
    found = model.evaluate(x, y, verbose=0, batch_size=BATCH)
    # Replicas have statistics of their own, which a call outside of them averages.
    replicas = getattr(getattr(model, "distribute_strategy", None), "num_replicas_in_sync", 1)
    outputs = model(x) if replicas == 1 else model.predict(x, verbose=0, batch_size=BATCH)
    chosen = np.take_along_axis(array(outputs), y[:, None], axis=1)
    np.testing.assert_allclose(found, -np.log(chosen).mean(), rtol=1e-2, atol=1e-3)
    assert kss.penalty(model) > 0.1, "the control"


def check_surgery(model: keras.Model) -> None:
    """The masked network and the pruned one are the same function, and smaller than the first."""
    x, _ = data()
    small, same = kss.prune(model, tau=1e-3), kss.masked(model, kss.plan(model, tau=1e-3))
    tolerance = 2e-2 if "16" in model.layers[1].compute_dtype else 1e-4
    np.testing.assert_allclose(array(small(x)), array(same(x)), atol=tolerance)


def check_sparse(model: keras.Model) -> None:
    sizes = np.concatenate([np.array(s) for s in kss.plan(model, tau=1e-6).sizes.values()])
    assert 0 < sizes.sum() < 3 * sizes.size, sizes
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert len(distinct_alphas(kss.regularizers_of(model).values())) == 1
    check_surgery(model)


def frozen_values(model: keras.Model) -> dict[str, Array]:
    """The variables that training must not change, by path."""
    return {v.path: array(v) for v in model.non_trainable_variables if "moving" not in v.path}


def check_frozen(before: Mapping[str, Array], model: keras.Model) -> None:
    after = frozen_values(model)
    assert set(after) == set(before)
    assert all(np.array_equal(after[path], before[path]) for path in before)


class FrozenBetweenCuts(keras.callbacks.Callback):
    """Checks that frozen layers are left alone between cuts; a cut takes constants into them."""

    def on_train_begin(self, logs: Any = None) -> None:
        """Remember the frozen values."""
        self.values = frozen_values(self.model)

    def on_shrink(self, model: keras.Model, ancestry: Any) -> None:
        """Remember those of the smaller network, which has the same frozen layers."""
        assert set(frozen_values(model)) == set(self.values)
        self.values = frozen_values(model)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Compare."""
        check_frozen(self.values, self.model)


def share(model: keras.Model, of: keras.Model | None = None) -> float:
    pruned = kss.prune(model, tau=1e-3)
    return kss.profile(pruned).multiply_adds / kss.profile(of or model).multiply_adds


# --- the cells ---


def prepared(habit: Habit, regularizer: Any, folder: Path) -> keras.Model:
    model = habit.again(kss.attach(network(), regularizer), folder)
    model.compile(proximal(**habit.inner), LOSS, **habit.compiled)
    return model


def trained(habit: Habit, model: keras.Model, callbacks: list[Any], folder: Path) -> None:
    """Train, also after an interruption; what is refused has changed no weight."""
    before = model.get_weights()
    try:
        if habit.train is not None:
            steps = {"epochs": EPOCHS, "steps": EXAMPLES // BATCH}
            own = [*habit.callbacks(folder), *callbacks]
            habit.train(model, K.CallbackList(own, model=model, **steps))
            return
        if habit.killed_at is not None:
            with suppress(Killed):
                fitted(habit, model, [*callbacks, Kill(habit.killed_at)], folder)
        history = fitted(habit, model, callbacks, folder)
        assert habit.killed_at is None or len(history.epoch) == EPOCHS - habit.killed_at
    except REFUSALS:
        assert all(map(np.array_equal, before, model.get_weights()))
        raise


def fitted(habit: Habit, model: keras.Model, callbacks: list[Any], folder: Path) -> Any:
    return model.fit(
        *data(),
        batch_size=BATCH,
        epochs=EPOCHS,
        verbose=0,
        callbacks=[*habit.callbacks(folder), *callbacks],
        **habit.fitted,
    )


class Killed(Exception):
    """A training was interrupted."""


class Kill(keras.callbacks.Callback):
    """Interrupts a training."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.epoch:
            raise Killed


def fixed_alpha(habit: Habit, way: str, folder: Path) -> None:
    regularizer = ALPHAS[way]()
    regularizer.alpha.assign(array(regularizer.alpha) * habit.alphas.get(way, 1.0))
    model = prepared(habit, regularizer, folder)
    before = frozen_values(model)
    trained(habit, model, [], folder)
    check_sparse(model)
    check_loss_is_that_of_the_data(model)
    check_frozen(before, model)


def with_target(habit: Habit, way: str, folder: Path) -> None:
    model = prepared(habit, kss.KernelSize(0.02), folder)
    before = frozen_values(model)
    target = kss.TargetMultiplyAdds(TARGET, tolerance=0.05)
    trained(habit, model, [target], folder)
    assert target.reached == share(model)
    assert abs(target.reached - TARGET) <= 0.05
    check_surgery(model)
    check_loss_is_that_of_the_data(model)
    check_frozen(before, model)


def shrinking(habit: Habit, way: str, folder: Path) -> None:
    model = prepared(habit, kss.KernelSize(0.05 * habit.alphas.get(way, 1.0)), folder)
    if habit.train is not None:
        habit.train(model, K.CallbackList([], model=model))
    whole = kss.profile(model).multiply_adds
    shrunk = kss.fit_shrinking(
        model,
        *data(),
        shrink_every=2,
        always=True,
        epochs=EPOCHS,
        batch_size=BATCH,
        verbose=0,
        callbacks=[*habit.callbacks(folder), FrozenBetweenCuts()],
        **habit.fitted,
    )
    if habit.train is not None:
        habit.train(shrunk.model, K.CallbackList([], model=shrunk.model))
    assert kss.profile(shrunk.model).multiply_adds < whole
    assert np.isfinite(shrunk.history["loss"]).all()
    check_surgery(shrunk.model)
    check_loss_is_that_of_the_data(shrunk.model)


def swept(habit: Habit, way: str, folder: Path) -> None:
    if habit.sweep == "train":
        arguments: dict[str, Any] = {"train": habit.train}
    elif habit.sweep is not None:
        arguments = {habit.sweep: habit.callbacks(folder)}
    else:
        arguments = {**habit.compiled, **habit.fitted}
    Recipe(**{**habit.inner, "epochs": 3, "batch_size": BATCH})
    settings = kss.SweepSettings(
        "tiny",
        "halves",
        alphas=(0.05,),
        taus=(0.0, 0.1),
        recipe=Recipe(epochs=6, batch_size=BATCH),
        max_drop=1.0,
    )
    split = Split(*data())
    halves = Dataset("halves", split, split, split, 2, (6, 6, 1))
    run = kss.sweep(
        lambda: habit.again(network(), folder),
        halves,
        settings,
        folder / "run",
        None if habit.strategy is None else strategy_of(habit),
        console=Quiet(),
        **arguments,
    )
    points = [found.point for found in run.found()]
    assert len(points) >= 2
    assert min(point.multiply_adds_fraction for point in points) < 1.0
    assert all(0 <= point.accuracy_finetuned <= 1 for point in points)


class Quiet:
    """A console that prints nothing."""

    def print(self, *arguments: Any, **options: Any) -> None:
        """Print nothing."""


CELLS: Mapping[str, Callable[[Habit, str, Path], None]] = {
    **dict.fromkeys(ALPHAS, fixed_alpha),
    "`TargetMultiplyAdds`": with_target,
    "`fit_shrinking`": shrinking,
    "`sweep`": swept,
}


@functools.cache
def _strategy(name: str) -> Any:
    make = HABITS[name].strategy
    return None if make is None else make()


def strategy_of(habit: Habit) -> Any:
    """The strategy of a habit, which a process can make once."""
    return _strategy(habit.name)


def outcome(name: str, way: str, folder: Path) -> str:
    """The text of a cell: "works", or "refused: " and the reason.

    Raises:
        AssertionError: Something does not hold.
    """
    habit = HABITS[name]
    strategy = strategy_of(habit)
    keras.config.set_dtype_policy(habit.policy)
    try:
        with nullcontext() if strategy is None or way == "`sweep`" else strategy.scope():
            CELLS[way](habit, way, folder)
    except kss.DeadNetworkError as error:
        raise AssertionError("too much vanished") from error
    except REFUSALS as error:
        return f"refused: {reason(error)}"
    finally:
        with suppress(Exception):
            keras.config.set_dtype_policy("float32")
    return "works"


def reason(error: Exception) -> str:
    """What a message says was received, or that there is no such argument."""
    text = " ".join(str(error).split())
    unknown = re.search(r"(\w+)(?:\.__init__)?\(\) got an unexpected .*argument '(\w+)'", text)
    if unknown:
        return f"`{unknown[1]}` has no argument `{unknown[2]}`"
    assert "Received: " in text, text
    return text.rsplit("Received: ", 1)[1].rstrip(".")
