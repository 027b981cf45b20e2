"""Under `Proximal` the penalty is not in the loss, in whatever order things are done."""

from __future__ import annotations

import gc
import itertools
from typing import Any

import keras
import numpy as np
import pytest
from helpers_prox import numpy
from helpers_training import compiled, images, network
from keras import optimizers as O

import keras_structsparse as kss

Array = Any

ALPHA, STEPS = 0.3, 3
LOSS = keras.losses.SparseCategoricalCrossentropy()
TENSORFLOW = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.GradientTape")


def proximal() -> kss.Proximal:
    return kss.Proximal(O.SGD(0.1))


def attached() -> keras.Model:
    keras.utils.set_random_seed(0)
    return kss.attach(network(), kss.KernelSize(ALPHA))


def data_loss(model: keras.Model) -> float:
    x, y = images()
    return float(numpy(LOSS(y, model(x))))


# --- models that are compiled ---


def test_loss_and_val_loss_are_those_of_the_data() -> None:
    model = compiled(attached(), proximal())
    x, y = images()
    before = model.evaluate(x, y, verbose=0, batch_size=64)
    assert before == pytest.approx(data_loss(model), rel=1e-5)
    history = model.fit(x, y, verbose=0, batch_size=64, validation_data=(x, y)).history
    assert history["val_loss"][0] == pytest.approx(data_loss(model), rel=1e-2)
    assert model.evaluate(x, y, verbose=0, batch_size=64) == pytest.approx(data_loss(model))
    # The control: compiled with another optimizer, the loss has the penalty.
    compiled(model, O.SGD(0.0))
    expected = data_loss(model) + kss.penalty(model)
    assert model.evaluate(x, y, verbose=0, batch_size=64) == pytest.approx(expected, rel=1e-5)
    assert kss.penalty(model) > 0.5


def test_models_that_share_layers_have_the_loss_of_their_own_optimizer() -> None:
    one = attached()
    other = keras.Model(one.input, one.output)
    compiled(one, proximal())
    compiled(other, O.SGD(0.1))
    for model in (one, other):
        model.train_on_batch(*images())
    found = [model.evaluate(*images(), verbose=0, batch_size=64) for model in (one, other)]
    expected = [data_loss(one), data_loss(one) + kss.penalty(one)]
    assert found == pytest.approx(expected, rel=1e-5)
    assert kss.penalty(one) > 0.5


def test_the_outer_model_that_is_trained_decides() -> None:
    inner = attached()
    inputs = keras.Input((6, 6, 2))
    outer = compiled(keras.Model(inputs, inner(inputs)), proximal())
    assert outer.evaluate(*images(), verbose=0, batch_size=64) == pytest.approx(data_loss(inner))


class TwoOptimizers(keras.Model):
    """A model with an optimizer of its own beside the compiled one."""

    def train_step(self, data: Any) -> Any:
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        variables = self.trainable_variables
        self.own.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return {"loss": loss}


@TENSORFLOW
def test_an_optimizer_inside_a_training_step_takes_the_penalty_out() -> None:
    weights = []
    for kind in (keras.Model, TwoOptimizers):
        model = attached()
        model = kind(model.input, model.output)
        model.own = proximal()
        compiled(model, "sgd" if kind is TwoOptimizers else proximal())
        model.fit(*images(), epochs=2, batch_size=32, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for left, right in zip(*weights, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)


# --- loops of one's own ---


def loop(add: bool, built: bool, form: str, look: bool, **options: Any) -> list[Array]:
    """The weights after some steps of a loop, of which one detail each may differ."""
    import tensorflow as tf

    model, optimizer = attached(), kss.Proximal(O.SGD(0.1), **options)
    variables = model.trainable_variables
    x, y = map(tf.constant, images())

    def gradients() -> list[Any]:
        with tf.GradientTape() as tape:
            loss = LOSS(y, model(x, training=True))
            if add:
                loss += sum(model.losses)
        return tape.gradient(loss, variables)

    def step() -> None:
        optimizer.apply_gradients(zip(gradients(), variables, strict=True))

    if look:
        assert float(sum(model.losses)) > 0.5
    if built:
        optimizer.build(variables)
    if form == "gradients are compiled":
        gradients = tf.function(gradients)
    if form == "the step is compiled":
        step = tf.function(step)
    for _ in range(STEPS):
        step()
    if look:
        assert float(sum(model.losses)) == 0.0
    return model.get_weights()


@TENSORFLOW
def test_a_loop_finds_the_same_with_and_without_the_models_losses() -> None:
    expected = loop(False, True, "eager", False)
    forms = ("eager", "gradients are compiled", "the step is compiled")
    cases = list(itertools.product((True, False), (True, False), forms))
    for index, (add, built, form) in enumerate(cases):
        found = loop(add, built, form, look=index % 2 == 0)
        for left, right in zip(found, expected, strict=True):
            np.testing.assert_allclose(left, right, atol=1e-5, err_msg=f"{add, built, form}")
    control = loop(True, False, "eager", False, penalty_in_loss=False)
    distance = max(np.abs(a - b).max() for a, b in zip(control, expected, strict=True))
    assert distance > 1e-3


@TENSORFLOW
def test_without_its_optimizer_the_penalty_is_in_the_losses_again() -> None:
    model, optimizer = attached(), proximal()
    assert float(sum(model.losses)) == pytest.approx(kss.penalty(model))
    optimizer.build(model.trainable_variables)
    assert float(sum(model.losses)) == 0.0
    del optimizer
    gc.collect()
    assert float(sum(model.losses)) == pytest.approx(kss.penalty(model))
    assert kss.penalty(model) > 0.5


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="compiled functions of JAX")
def test_on_jax_the_optimizer_is_built_before_the_loss_is_differentiated() -> None:
    import jax

    model = attached()

    def penalty(trainable: Any) -> Any:
        others = [v.value for v in model.non_trainable_variables]
        *_, losses = model.stateless_call(trainable, others, images()[0], return_losses=True)
        return sum(losses)

    optimizer = proximal()
    jax.grad(penalty)([v.value for v in model.trainable_variables])
    with pytest.raises(ValueError, match=r"optimizer\.build"):
        optimizer.build(model.trainable_variables)


# --- other regularizers ---


def test_a_regularizer_that_is_there_stays_beside_ours() -> None:
    model = network(keras.regularizers.L2(0.1))
    l2 = float(numpy(sum(model.losses)))
    kss.attach(kss.attach(model, kss.KernelSize(1.0)), kss.KernelSize(ALPHA))
    both = float(numpy(sum(model.losses)))
    assert both == pytest.approx(l2 + kss.penalty(model), rel=1e-5)
    assert min(l2, kss.penalty(model)) > 0.1
    x, y = images()
    copies = (keras.models.clone_model(model), kss.prune(model, kss.Plan({})))
    for copy in copies:
        copy.set_weights(model.get_weights())
    clone, pruned = (float(numpy(sum(copy.losses))) for copy in copies)
    assert clone == pytest.approx(both, rel=1e-5)
    assert pruned == pytest.approx(l2, rel=1e-5)
    compiled(model, proximal())
    found = model.evaluate(x, y, verbose=0, batch_size=64)
    assert found == pytest.approx(data_loss(model) + l2, rel=1e-5)
