"""What Keras users do every day: the rows of `docs/keras-habits.md`, on a tiny network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers as L
from keras import optimizers as O

import keras_structsparse as kss

Array = Any

EXAMPLES, BATCH, EPOCHS = 64, 16, 8
LOSS = keras.losses.SparseCategoricalCrossentropy()


@functools.cache
def data() -> tuple[Array, Array]:
    """Two classes: which half of a noisy image is brighter."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(EXAMPLES, 6, 6, 1)).astype("float32"), rng.integers(0, 2, EXAMPLES)
    for image, label in zip(x, y, strict=True):
        image[:, 3 * label : 3 * label + 3] += 1.5
    return x, y


def network() -> keras.Model:
    """Two convolutions with normalisation and a softmax."""
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((6, 6, 1))
    for index in range(2):
        x = L.Conv2D(6, 3, padding="same", use_bias=False, name=f"conv{index}")(x)
        x = L.ReLU()(L.BatchNormalization(momentum=0.5, name=f"norm{index}")(x))
    x = L.Dense(2, name="head")(L.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, L.Activation("softmax", dtype="float32")(x))


class OwnStep(keras.Model):
    """A model with a training step of its own."""

    def train_step(self, *arguments: Any) -> Any:
        return super().train_step(*arguments)


@dataclass(frozen=True)
class Habit:
    """A row.

    Attributes:
        name: What the page calls it.
        callbacks: Makes its callbacks, given a folder.
        inner: Options of the optimizer that `Proximal` wraps.
        compiled: Options of ``compile``.
        fitted: Options of ``fit``.
        again: Makes the model that is trained, from the one with its penalty and a folder.
        train: Trains in place of ``fit``.
        policy: The dtype policy.
        strategy: Makes the strategy to train under.
        alphas: Factors of alpha, by column, where the usual one removes too much or too little.
        killed_at: The epoch in which a first attempt is interrupted.
        sweep: The argument by which `sweep` would have to take it; None: `build` gives `again`.
    """

    name: str
    callbacks: Callable[[Path], list[keras.callbacks.Callback]] = lambda folder: []
    inner: Mapping[str, Any] = field(default_factory=dict)
    compiled: Mapping[str, Any] = field(default_factory=dict)
    fitted: Mapping[str, Any] = field(default_factory=dict)
    again: Callable[[keras.Model, Path], keras.Model] = lambda model, folder: model
    train: Callable[[keras.Model, Any], Any] | None = None
    policy: str = "float32"
    strategy: Callable[[], Any] | None = None
    alphas: Mapping[str, float] = field(default_factory=dict)
    killed_at: int | None = None
    sweep: str | None = None


def proximal(**options: Any) -> kss.Proximal:
    return kss.Proximal(O.SGD(0.1, momentum=0.9, **options))


# --- rows that are more than options ---


def frozen(model: keras.Model, folder: Path) -> keras.Model:
    for layer in model.layers:
        if layer.name in ("conv1", "norm1"):
            layer.trainable = False
    return model


def frozen_norms(model: keras.Model, folder: Path) -> keras.Model:
    x, _ = data()
    for layer in model.layers:
        if layer.name.startswith("norm"):  # with statistics of the data, as after a training
            layer.trainable = False
            inner = keras.Model(model.input, layer.input)
            values = keras.ops.convert_to_numpy(inner(x))
            layer.moving_mean.assign(values.mean(axis=(0, 1, 2)))
            layer.moving_variance.assign(values.var(axis=(0, 1, 2)))
    return model


def saved_as(name: str) -> Callable[[keras.Model, Path], keras.Model]:
    def again(model: keras.Model, folder: Path) -> keras.Model:
        model.save(folder / name)
        return keras.models.load_model(folder / name)

    return again


def saved_compiled(model: keras.Model, folder: Path) -> keras.Model:
    model.compile(proximal() if kss.regularizers_of(model) else "sgd", LOSS)
    model.fit(*data(), batch_size=BATCH, verbose=0)
    return saved_as("compiled.keras")(model, folder)


def cloned(model: keras.Model, folder: Path) -> keras.Model:
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


def with_loaded_weights(model: keras.Model, folder: Path) -> keras.Model:
    model.save_weights(folder / "all.weights.h5")
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    model.load_weights(folder / "all.weights.h5")
    return model


def compiled_twice(model: keras.Model, folder: Path) -> keras.Model:
    model.compile("adam", LOSS)
    model.fit(*data(), batch_size=BATCH, verbose=0)
    model.evaluate(*data(), verbose=0)
    return model


def own_step(model: keras.Model, folder: Path) -> keras.Model:
    return OwnStep(model.input, model.output)


def batches() -> list[tuple[Array, Array]]:
    x, y = data()
    return [(x[k : k + BATCH], y[k : k + BATCH]) for k in range(0, EXAMPLES, BATCH)]


def looped(model: keras.Model, callbacks: Any, step: Callable[[Array, Array], Any]) -> None:
    """A loop that calls the callbacks as `fit` does."""
    callbacks.on_train_begin()
    for epoch in range(EPOCHS):
        callbacks.on_epoch_begin(epoch)
        for index, batch in enumerate(batches()):
            callbacks.on_train_batch_begin(index)
            step(*batch)
            callbacks.on_train_batch_end(index)
        callbacks.on_epoch_end(epoch, {})
    callbacks.on_train_end()


def by_batches(model: keras.Model, callbacks: Any) -> None:
    looped(model, callbacks, model.train_on_batch)


def ones_own(add_losses: bool) -> Callable[[keras.Model, Any], None]:
    def train(model: keras.Model, callbacks: Any) -> None:
        import tensorflow as tf

        def step(x: Array, y: Array) -> None:
            with tf.GradientTape() as tape:
                loss = LOSS(y, model(x, training=True))
                if add_losses:
                    loss += sum(model.losses)
            variables = model.trainable_variables
            model.optimizer.apply_gradients(
                zip(tape.gradient(loss, variables), variables, strict=True)
            )

        looped(model, callbacks, step)

    return train


def two_devices() -> Any:
    from helpers_mirrored import two_devices

    return two_devices()


K = keras.callbacks
HABITS = {
    habit.name: habit
    for habit in (
        Habit("`EarlyStopping`", lambda f: [K.EarlyStopping("loss", 9.0, 5)], sweep="callbacks"),
        Habit(
            "`EarlyStopping(restore_best_weights=True)`",
            lambda f: [K.EarlyStopping("loss", patience=3, restore_best_weights=True)],
            sweep="callbacks",
        ),
        Habit(
            "`ModelCheckpoint`",
            lambda f: [K.ModelCheckpoint(str(f / "last.keras"))],
            sweep="callbacks",
        ),
        Habit(
            "`ModelCheckpoint(save_best_only=True)`",
            lambda f: [K.ModelCheckpoint(str(f / "b.keras"), "loss", save_best_only=True)],
            sweep="callbacks",
        ),
        Habit(
            "`BackupAndRestore`",
            lambda f: [K.BackupAndRestore(str(f / "backup"))],
            killed_at=3,
            sweep="callbacks",
        ),
        Habit(
            "`ReduceLROnPlateau`",
            lambda f: [K.ReduceLROnPlateau("loss", 0.5, 1, min_lr=0.02)],
            sweep="callbacks",
        ),
        Habit("`TensorBoard`", lambda f: [K.TensorBoard(str(f / "board"))], sweep="callbacks"),
        Habit("`CSVLogger`", lambda f: [K.CSVLogger(str(f / "log.csv"))], sweep="callbacks"),
        Habit("`TerminateOnNaN`", lambda f: [K.TerminateOnNaN()], sweep="callbacks"),
        Habit("averages (`use_ema=True`)", inner={"use_ema": True, "ema_momentum": 0.5}),
        Habit(
            "averages that overwrite (`ema_overwrite_frequency`)",
            inner={"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 6},
        ),
        Habit(
            "gradient accumulation",
            inner={"gradient_accumulation_steps": 2},
            alphas={"`fit_shrinking`": 1.5},  # half as many steps
        ),
        Habit("clipping (`clipnorm`)", inner={"clipnorm": 1.0}),
        Habit("mixed precision (`mixed_float16`)", policy="mixed_float16"),
        Habit("`steps_per_execution`", compiled={"steps_per_execution": 2}),
        Habit("`jit_compile=True`", compiled={"jit_compile": True}),
        Habit("`run_eagerly=True`", compiled={"run_eagerly": True}),
        Habit("`train_on_batch`", train=by_batches, sweep="train"),
        Habit("a loop of your own, with `model.losses`", train=ones_own(True), sweep="train"),
        Habit("a loop of your own, without them", train=ones_own(False), sweep="train"),
        Habit("a `train_step` of your own", again=own_step),
        Habit("class weights", fitted={"class_weight": {0: 1.0, 1: 2.0}}),
        Habit("sample weights", fitted={"sample_weight": np.linspace(0.5, 1.5, EXAMPLES)}),
        Habit("frozen layers", again=frozen),
        Habit("frozen normalisations", again=frozen_norms, alphas={"`MultiplyAdds`": 0.1}),
        Habit("`MirroredStrategy`", strategy=two_devices),
        Habit("`save`, `load_model`", again=saved_as("model.keras")),
        Habit("`save`, `load_model`, compiled", again=saved_compiled),
        Habit("`save` as `.h5`, `load_model`", again=saved_as("model.h5")),
        Habit("`clone_model`", again=cloned),
        Habit("`save_weights`, `load_weights`", again=with_loaded_weights),
        Habit("compiled a second time", again=compiled_twice),
    )
}
