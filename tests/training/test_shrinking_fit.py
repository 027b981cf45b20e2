"""Training that shrinks as one training: callbacks, schedules, history; and what it refuses."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import use_float64
from helpers_training import images
from helpers_training import network as small_network
from keras import optimizers as O

import keras_structsparse as kss
from keras_structsparse.profiling.profile import profile
from keras_structsparse.regularizers import KernelCount, KernelSize
from keras_structsparse.regularizers.attachment import attach, regularizers_of
from keras_structsparse.surgery.kernel_provenance import Ancestry
from keras_structsparse.training.callbacks.alpha_ramp import AlphaRamp
from keras_structsparse.training.callbacks.sparsity_logger import SparsityLogger
from keras_structsparse.training.optimizer.proximal import Proximal
from keras_structsparse.training.shrinking import Shrunk, fit_shrinking


class Diary(keras.callbacks.Callback):
    """What a callback is told, and by which network."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Any] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Write it down."""
        self.entries.append(("begin", self.params["epochs"], self.params["steps"]))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Write it down."""
        self.entries.append((epoch, self.model.get_layer("conv").filters))

    def on_shrink(self, model: keras.Model, ancestry: Ancestry) -> None:
        """Write it down."""
        self.entries.append(("shrink", ancestry.layers["conv"]))

    def on_train_end(self, logs: Any = None) -> None:
        """Write it down."""
        self.entries.append(("end", sorted(logs)))


def start(alpha: float = 1e-3) -> keras.Model:
    """A compiled network with two kernels that are zero and will stay so."""
    model = attach(small_network(), KernelCount(alpha))
    norm = model.get_layer("norm")
    alive = np.array([1, 0, 1, 1, 0, 1, 1, 1.0])
    norm.gamma.assign(alive)
    norm.beta.assign(alive - 1.0)
    model.compile(
        Proximal(O.SGD(0.01, momentum=0.9)), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def fitted(model: keras.Model, **options: Any) -> Shrunk:
    settings = {"shrink_every": 2, "always": True, "epochs": 5, "batch_size": 32, "verbose": 0}
    return fit_shrinking(model, *images(), **{**settings, **options})


def test_callbacks_see_one_training() -> None:
    diary, model = Diary(), start()
    alpha = regularizers_of(model)["conv"].alpha
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 / (1 + epoch))
    shrunk = fitted(model, initial_epoch=1, callbacks=[diary, schedule])
    assert diary.entries == [
        ("begin", 5, 2),
        (1, 8),
        (2, 8),
        ("shrink", ("conv", (0, 2, 3, 5, 6, 7))),
        (3, 6),
        (4, 6),
        ("end", ["accuracy", "loss"]),
    ]
    rates = shrunk.history["learning_rate"]
    np.testing.assert_allclose(rates, [0.01 / (1 + epoch) for epoch in range(1, 5)], rtol=1e-6)
    assert int(shrunk.model.optimizer.iterations) == 8
    assert [section.epoch for section in shrunk.sections] == [1, 3]
    assert shrunk.plan(0.0).sizes["conv"] == (3, 0, 3, 3, 0, 3, 3, 3)
    assert regularizers_of(shrunk.model)["conv"].alpha is alpha
    assert shrunk.model.history.history == shrunk.history


def test_weights_end_as_without_shrinking() -> None:
    """The control: with another order of the images."""
    use_float64()
    results = []
    for every, shuffled in ((2, False), (5, False), (2, True)):
        keras.utils.set_random_seed(3)
        shrunk = fitted(start(), shrink_every=every, shuffle=shuffled)
        results.append(keras.ops.convert_to_numpy(shrunk.model.get_layer("classes").bias))
    np.testing.assert_allclose(results[0], results[1], atol=1e-10)
    assert np.abs(results[0] - results[2]).max() > 1e-6


def test_an_early_stop_ends_the_whole_training() -> None:
    stopping = keras.callbacks.EarlyStopping("loss", min_delta=100.0, patience=1)
    shrunk = fitted(start(), callbacks=[stopping], epochs=9)
    assert len(shrunk.history["loss"]) == 2


def test_the_ramp_of_alpha_and_the_logger_go_on() -> None:
    model = start()
    alpha = regularizers_of(model)["conv"].alpha
    seen: list[float] = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(float(keras.ops.convert_to_numpy(alpha)))
    )
    shrunk = fitted(model, callbacks=[AlphaRamp([alpha], 8), SparsityLogger(0.0), note])
    np.testing.assert_allclose(seen, np.array([1, 3, 5, 7, 8]) / 8 * 1e-3, rtol=1e-5)
    assert shrunk.history["conv/size_0"][-1] == 2.0
    assert shrunk.history["conv/width"][-1] == 6.0
    whole, shares = profile(model).multiply_adds, shrunk.history["total/multiply_adds_fraction"]
    assert shares[-1] == pytest.approx(profile(shrunk.model).multiply_adds / whole)
    assert set(shrunk.history["conv/penalty"]) != {0.0}


def test_it_shrinks_only_where_that_pays() -> None:
    """A recompilation takes longer than these steps; always is the control."""
    assert len(fitted(start(), always=False).sections) == 1
    assert len(fitted(start()).sections) == 2


def test_what_is_dead_is_not_cut() -> None:
    model = start()
    for weight in (model.get_layer("norm").gamma, model.get_layer("norm").beta):
        weight.assign(np.zeros(8) - 1.0 * (weight.name == "beta"))
    shrunk = fitted(model)
    assert shrunk.model is model


# --- what cannot follow ---


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"shrink_every": 0}, "shrink_every: expected a whole number >= 1. Received: 0"),
        ({"shrink_every": 1.5}, "shrink_every: expected a whole number >= 1. Received: 1.5"),
        (
            {"callbacks": [kss.TargetMultiplyAdds(0.5)]},
            "Received: TargetMultiplyAdds; it may restore kernels",
        ),
        (
            {"callbacks": [keras.callbacks.EarlyStopping(restore_best_weights=True)]},
            "Received: EarlyStopping; the best weights",
        ),
    ],
)
def test_what_cannot_follow_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        fitted(start(), **options)


def own_loss(truth: Any, guess: Any) -> Any:
    """A function that Keras does not know by name."""
    return keras.ops.sum(guess)


def test_models_that_cannot_shrink_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a compiled model"):
        fitted(small_network())
    plain = small_network()
    plain.compile(O.SGD(0.1), "mse")
    with pytest.raises(ValueError, match=r"expected one with regularizers .*Received: none"):
        fitted(plain)
    counting = attach(small_network(), KernelSize(1e-3, norm="group_normalized"))
    counting.compile(Proximal(O.SGD(0.1)), "mse")
    with pytest.raises(ValueError, match="'group_normalized' on 'conv', which counts entries"):
        fitted(counting)
    averaging = attach(small_network(), KernelSize(1e-3))
    averaging.compile(Proximal(O.SGD(0.1, use_ema=True)), "mse")
    with pytest.raises(ValueError, match="without use_ema"):
        fitted(averaging)
    own = attach(small_network(), KernelSize(1e-3))
    own.compile(Proximal(O.SGD(0.1)), own_loss)
    with pytest.raises(ValueError, match="that Keras can serialize"):
        fitted(own)
