"""Every private part of Keras that is used is there; without one, an error says what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import optimizers as O

from keras_structsparse import _keras_compat as compat
from keras_structsparse.errors import StructSparseError, UnsupportedKerasError


def model() -> keras.Model:
    inputs = keras.Input((4,), name="inputs")
    return keras.Model(inputs, L.Dense(3, name="dense")(inputs))


def dense() -> keras.Layer:
    return model().get_layer("dense")


def trained(optimizer: Any) -> Any:
    network = model()
    network.compile(optimizer, "mse")
    network.train_on_batch(np.ones((2, 4)), np.ones((2, 3)))
    return optimizer


def node() -> Any:
    return next(compat.nodes(model()))


Use = tuple[Callable[[], Any], Callable[[Any], Any]]

USES: dict[str, Use] = {
    "_inputs_struct": (model, compat.input_structure),
    "_outputs_struct": (model, compat.output_structure),
    "_nodes_by_depth": (model, lambda m: list(compat.nodes(m))),
    "_keras_history": (lambda: model().outputs[0], compat.producer),
    "_inbound_nodes": (dense, lambda layer: compat.without_calls(layer, "other")),
    "_outbound_nodes": (dense, lambda layer: compat.without_calls(layer, "other")),
    "_auto_config": (dense, compat.constructor_arguments),
    "_flatten_layers": (dense, compat.inner_layers),
    "_fn": (keras.metrics.MeanSquaredError, compat.metric_function),
    "_fn_kwargs": (keras.metrics.MeanSquaredError, compat.metric_function),
    "_dtype_policy": (dense, lambda x: compat.set_dtype_policy(x, keras.DTypePolicy("float64"))),
    "_trainable_variables": (lambda: trained(O.SGD()), compat.trained_variables),
    "_get_variable_index": (
        lambda: trained(O.SGD()),
        lambda o: compat.variable_index(o, compat.trained_variables(o)[1]),
    ),
    "_use_weight_decay": (
        lambda: trained(O.SGD(weight_decay=0.1)),
        lambda o: compat.uses_weight_decay(o, compat.trained_variables(o)[0]),
    ),
    "_iterations": (lambda: trained(O.SGD()), compat.batches_seen),
    "_track_variable": (
        lambda: trained(O.SGD()),
        lambda o: compat.track(o, keras.Variable(0.0)),
    ),
    "_model_variables_moving_average": (
        lambda: trained(O.SGD(use_ema=True)),
        compat.weight_averages,
    ),
    "_momentums": (lambda: trained(O.Adam()), compat.first_moments),
    "_velocities": (lambda: trained(O.Adam()), compat.second_moments),
    "_velocity_hats": (lambda: trained(O.Adam(amsgrad=True)), compat.largest_second_moments),
    "_u": (lambda: trained(O.Adamax()), compat.infinity_norms),
    "_average_gradients": (lambda: trained(O.RMSprop(centered=True)), compat.mean_gradients),
    "_accumulators": (lambda: trained(O.Adagrad()), compat.summed_squares),
}
"""By private name: what has it, and what reads it."""


def remove(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """As on a Keras that never had this name."""
    if name in vars(owner):
        del vars(owner)[name]
    for kind in type(owner).__mro__:
        if name in vars(kind):
            monkeypatch.delattr(kind, name)


@pytest.mark.parametrize("name", USES)
def test_a_private_name_is_there(name: str) -> None:
    make, use = USES[name]
    owner = make()
    assert hasattr(owner, name)
    use(owner)


@pytest.mark.parametrize("name", USES)
def test_a_keras_that_lacks_one_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, use = USES[name]
    owner = make()
    remove(monkeypatch, owner, name)
    with pytest.raises(UnsupportedKerasError) as caught:
        use(owner)
    message = str(caught.value)
    assert f".{name}'" in message
    assert f"Keras {keras.__version__}: expected" in message
    assert "Install another Keras from 3.12 on, or a newer keras_structsparse." in message
    assert isinstance(caught.value, StructSparseError)
    assert isinstance(caught.value, RuntimeError)


@pytest.mark.parametrize(
    ("name", "make", "use"),
    [
        ("_initializer", lambda: keras.Variable(1.0), lambda v: compat.set_fallback_value(v, 2.0)),
        ("jax_state_sync", model, compat.sync_jax_state),
    ],
)
def test_what_only_jax_needs(
    name: str, make: Any, use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = make()
    remove(monkeypatch, owner, name)
    with monkeypatch.context() as other:
        other.setattr(keras.backend, "backend", lambda: "tensorflow")
        use(owner)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UnsupportedKerasError, match=name):
        use(owner)


class Asking(keras.regularizers.Regularizer):
    """Writes down who reads the losses that it is called for."""

    def __init__(self) -> None:
        self.found: list[compat.LossRequest | None] = []

    def __call__(self, variable: Any) -> Any:
        self.found.append(compat.loss_request())
        return keras.ops.sum(variable) * 0.0


def test_a_regularizer_finds_the_model_whose_losses_are_read() -> None:
    network, asking = model(), Asking()
    kernel = network.get_layer("dense").kernel
    kernel.regularizer = asking
    other = keras.Model(network.input, network.output)
    for owner in (network, other, network.get_layer("dense")):
        asking.found.clear()
        assert len(owner.losses) == 1
        assert asking.found == [compat.LossRequest(owner, by_trainer=False)]
    network.compile("sgd", "mse")
    for use in (network.train_on_batch, network.test_on_batch):
        asking.found.clear()
        use(np.ones((2, 4)), np.ones((2, 3)))
        assert all(found and found.by_trainer for found in asking.found)
        training = [found for found in asking.found if found and found.training]
        assert bool(training) == (use == network.train_on_batch)
    asking.found.clear()
    asking(kernel)
    assert asking.found == [None], "the control: called by something else"


def test_a_keras_that_reads_losses_otherwise_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(keras.Layer, compat.READER)
    with pytest.raises(UnsupportedKerasError, match=compat.READER):
        compat.loss_request()


def test_a_callback_finds_the_others_of_its_training() -> None:
    found: list[Any] = []

    class Looking(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            found.extend(compat.callbacks_of_fit())

    network, callbacks = model(), [Looking(), keras.callbacks.TerminateOnNaN()]
    network.compile("sgd", "mse")
    network.fit(np.ones((2, 4)), np.ones((2, 3)), verbose=0, callbacks=callbacks)
    assert [each for each in found if each in callbacks] == callbacks
    assert compat.callbacks_of_fit() == []


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="part of the trainer of JAX")
def test_the_trainer_of_jax_can_be_synchronised() -> None:
    compat.sync_jax_state(model())


def test_a_variable_gets_a_value_to_fall_back_on(monkeypatch: pytest.MonkeyPatch) -> None:
    variable = keras.Variable(1.0)
    assert hasattr(variable, "_initializer")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    compat.set_fallback_value(variable, 2.0)
    assert float(variable._initializer(())) == 2.0


def test_compiled_functions_are_forgotten() -> None:
    network = model()
    network.compile("sgd", "mse")
    network.fit(np.ones((2, 4)), np.ones((2, 3)), verbose=0)
    assert network.train_function is not None
    compat.forget_compiled_functions(network)
    assert network.train_function is None


def test_a_keras_without_the_class_of_functional_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raised when it is needed, not on import."""
    network = model()
    monkeypatch.setitem(sys.modules, "keras.src.models.functional", None)
    compat.functional_class.cache_clear()
    try:
        with pytest.raises(UnsupportedKerasError, match=r"keras\.src\.models\.functional\.Funct"):
            compat.functional_class()
        assert compat.input_structure(network) is not None
    finally:
        compat.functional_class.cache_clear()


def test_functional_models_are_of_the_class() -> None:
    assert type(model()) is compat.functional_class()


def test_arguments_of_a_call_are_filled_in() -> None:
    first, second = (keras.Input((4, 2), name=name) for name in "ab")
    outputs = L.MultiHeadAttention(1, 2)(first, value=second)
    (call,) = compat.nodes(keras.Model([first, second], outputs))
    assert compat.filled(call.arguments, [1.0, 2.0]) == ((1.0,), {"value": 2.0})
    assert set(compat.keyword_arguments(call.arguments)) == {"value"}
    assert compat.producer(call.outputs[0]).operation is call.operation
    with pytest.raises(ValueError, match="zip"):
        compat.filled(call.arguments, [1.0])


OPTIMIZERS: dict[str, tuple[Callable[[], Any], int]] = {
    "sgd": (lambda: O.SGD(), 0),
    "momentum": (lambda: O.SGD(momentum=0.9), 1),
    "averages": (lambda: O.SGD(momentum=0.9, use_ema=True), 2),
    "accumulation": (lambda: O.Adam(gradient_accumulation_steps=2), 3),
    "adam": (lambda: O.Adam(), 2),
    "amsgrad": (lambda: O.Adam(amsgrad=True), 3),
    "rmsprop": (lambda: O.RMSprop(momentum=0.9, centered=True), 3),
    "nadam": (lambda: O.Nadam(), 2),
    "lamb": (lambda: O.Lamb(), 2),
    "lion": (lambda: O.Lion(), 1),
    "ftrl": (lambda: O.Ftrl(), 2),
    "adadelta": (lambda: O.Adadelta(), 2),
    "muon": (lambda: O.Muon(), 2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_slots_are_all_that_an_optimizer_keeps_of_each_variable(name: str) -> None:
    make, count = OPTIMIZERS[name]
    optimizer = trained(make())
    found = compat.slots(optimizer)
    assert len(found) == count
    variables = compat.trained_variables(optimizer)
    for own in found.values():
        for variable, slot in zip(variables, own, strict=True):
            assert slot is None or tuple(slot.shape) == tuple(variable.shape)
    mine = {id(slot) for own in found.values() for slot in own if slot is not None}
    others = [v.name for v in optimizer.variables if id(v) not in mine]
    assert sorted(others) == ["iteration", "learning_rate"] + ["variable"] * (name == "nadam")
