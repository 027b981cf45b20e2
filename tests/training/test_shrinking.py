"""One cut in a training: the same function, the same next step, the same penalty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import Array, randomize, use_float64
from keras import layers as L
from keras import optimizers as O

from keras_structsparse import models
from keras_structsparse.regularizers import KernelCount, KernelSize, MultiplyAdds
from keras_structsparse.regularizers.attachment import attach, regularizers_of
from keras_structsparse.regularizers.saliency import Saliency
from keras_structsparse.surgery import origins
from keras_structsparse.surgery.plans import plan
from keras_structsparse.training.fit import restart
from keras_structsparse.training.optimizer.proximal import Proximal
from keras_structsparse.training.optimizer_state import forget
from keras_structsparse.training.shrinking import shrink

ALPHA = 1e-3
CROSSENTROPY = keras.metrics.SparseCategoricalCrossentropy
DEAD = {"stem": (1, 4), "a": (0, 2), "b": (1, 4)}
"""Kernels that are set to zero; those of stem and b write the same channels."""
LEFT = {"stem": (0, 2, 3, 5), "a": (1, 3, 4), "b": (0, 2, 3, 5), "head": (0, 1, 2)}


def network(offset: float = -0.5) -> keras.Model:
    """A stem and a residual pair of 5x5 kernels; dead channels are ReLUs of the offset."""
    inputs = x = keras.Input((7, 6, 2))
    x = L.Conv2D(6, 5, padding="same", use_bias=False, name="stem")(x)
    x = L.ReLU()(L.BatchNormalization(name="stem_norm")(x))
    y = L.Conv2D(5, 5, padding="same", use_bias=False, name="a")(x)
    y = L.ReLU()(L.BatchNormalization(name="a_norm")(y))
    y = L.Conv2D(6, 5, padding="same", use_bias=False, name="b")(y)
    x = L.ReLU()(L.Add()([x, L.BatchNormalization(name="b_norm")(y)]))
    x = L.Dense(3, activation="softmax", name="head")(L.GlobalAveragePooling2D()(x))
    model = randomize(keras.Model(inputs, x))
    for name in DEAD:
        beta = model.get_layer(f"{name}_norm").beta
        beta.assign(np.full(beta.shape, offset))
    return model


def batch() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(8, 7, 6, 2)), rng.integers(0, 3, 8)


def trained(model: keras.Model, regularizer: Any, inner: Any = None, **how: Any) -> keras.Model:
    attach(model, regularizer, **how)
    optimizer = Proximal(inner or O.SGD(0.02, momentum=0.9))
    model.compile(
        optimizer, "sparse_categorical_crossentropy", metrics=[CROSSENTROPY()], run_eagerly=True
    )
    for _ in range(3):
        model.train_on_batch(*batch())
    kill(model)
    return model


def kill(model: keras.Model, dead: Mapping[str, tuple[int, ...]] = DEAD) -> None:
    """What the proximal step leaves of kernels, long ago, and ReLUs that give 0 behind them."""
    for name, numbers in dead.items():
        norm = model.get_layer(f"{name}_norm")
        alive = ~np.isin(np.arange(norm.gamma.shape[0]), numbers)
        gamma, beta = arrays(norm)[:2]
        norm.gamma.assign(gamma * alive)
        norm.beta.assign(np.where(alive, beta, -np.abs(beta)))
        forget(model, {id(norm.gamma): alive, id(norm.beta): alive})


def arrays(model: keras.Layer) -> list[Array]:
    return [np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights]


def moves(model: keras.Model) -> list[Array]:
    """By what the next step moves every weight."""
    before = arrays(model)
    model.train_on_batch(*batch())
    return [after - start for after, start in zip(arrays(model), before, strict=True)]


def gap(model: keras.Model, pruned: keras.Model, expected: list[Array]) -> float:
    """The largest difference of the next steps, over all weights that are left."""
    pairs = []
    for origin, new in zip(origins(model, pruned), moves(pruned), strict=True):
        assert origin is not None
        pairs.append((new, origin.of(expected[origin.weight])))
    assert max(np.abs(new).max() for new, _ in pairs) > 1e-4
    return float(max(np.abs(new - old).max() for new, old in pairs))


def forget_lost_rows(model: keras.Model, pruned: keras.Model) -> None:
    """Entries that read channels of zeros compute nothing, but lengthen kernels."""
    for origin in origins(model, pruned):
        assert origin is not None
        weight = model.weights[origin.weight]
        if weight.name == "kernel" and weight.path.split("/")[0] in DEAD:
            kept = np.isin(np.arange(weight.shape[-2]), origin.places[-2])
            weight.assign(np.where(kept[:, None], weight, 0.0))


def lost(groups: str, rings: int) -> Saliency:
    """Random numbers for the layers of the network."""
    rng = np.random.default_rng(5)
    own = {name: rng.random((rings, width)) for name, width in (("stem", 6), ("a", 5), ("b", 6))}
    return Saliency(own, own, groups)


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "count, reweighted": (lambda a: KernelCount(a, reweight=0.1), {"weights": "params"}),
    "count, squared": (lambda a: KernelCount(a, power=2), {}),
    "size": (lambda a: KernelSize(a), {"weights": "multiply_adds"}),
    "size, rings": (lambda a: KernelSize(a, groups="ring", reweight=0.2), {}),
    "count, saliency": (lambda a: KernelCount(a), {"saliency": lost("kernel", 1)}),
    "size, saliency": (
        lambda a: KernelSize(a, reweight=0.2),
        {"saliency": lost("half_ring", 5), "scale_free": True},
    ),
    "coupled": (lambda a: KernelSize(a, reweight=0.2), {"coupled": True}),
    "multiply-adds": (lambda a: MultiplyAdds(a / 100), {}),
    "multiply-adds, reweighted": (lambda a: MultiplyAdds(a / 1000, reweight=0.2), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_next_step_is_that_of_the_whole_network(name: str) -> None:
    """The controls: without the optimizer's state, and with another penalty."""
    use_float64()
    make, how = CASES[name]
    model = trained(network(), make(ALPHA), **how)
    if not name.startswith("count"):
        forget_lost_rows(model, shrink(model)[0])
    (pruned, left), (cold, _), (other, _) = (shrink(model) for _ in range(3))
    assert {n: own for n, (_, own) in left.layers.items()} == LEFT
    restart(cold.optimizer)
    expected = moves(model)
    assert gap(model, pruned, expected) < 1e-10
    assert gap(model, cold, expected) > 1e-4
    alpha = regularizers_of(other)["stem"].alpha
    alpha.assign(10 * float(keras.ops.convert_to_numpy(alpha)))
    assert gap(model, other, expected) > 1e-6


def test_dead_kernels_that_carry_constants_stay_dead() -> None:
    """Momentum would move them, and a normalisation makes the smallest kernel large."""
    use_float64()
    model = trained(network(offset=0.5), KernelSize(ALPHA))
    model.get_layer("stem_norm").beta.assign(np.full(6, 0.5))
    pruned, left = shrink(model)
    still = ~arrays(pruned.get_layer("stem"))[0].any(axis=(0, 1, 2))
    assert still.sum() == 1
    assert left.layers["stem"][1][int(np.argmax(still))] in DEAD["stem"]
    for _ in range(3):
        pruned.train_on_batch(*batch())
    kernel, gamma = arrays(pruned.get_layer("stem"))[0], arrays(pruned.get_layer("stem_norm"))[0]
    assert not kernel[..., still].any()
    assert not gamma[still].any()
    assert kernel[..., ~still].any(axis=(0, 1, 2)).all()


def test_the_loss_is_the_same_in_float32() -> None:
    """The control is a network with one more dead kernel."""
    model = trained(network(), KernelCount(ALPHA))
    before = model.evaluate(*batch(), verbose=0, return_dict=True)
    pruned, _ = shrink(model)
    after = pruned.evaluate(*batch(), verbose=0, return_dict=True)
    assert before == pytest.approx(after, rel=1e-6)
    kill(model, {"stem": (0,)})
    other, _ = shrink(model)
    assert other.evaluate(*batch(), verbose=0) != pytest.approx(before["loss"], rel=1e-4)


def test_the_zoo_can_shrink() -> None:
    """A network that is cut in the middle, and whose streams keep different channels."""
    model = attach(models.build("digits-residual"), KernelSize(1e-3), weights="multiply_adds")
    model.compile(Proximal(O.SGD(0.01, momentum=0.9)), "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.gamma.assign((rng.random(layer.gamma.shape) < 0.6).astype("float32"))
            layer.beta.assign(rng.normal(size=layer.beta.shape) * 0.3)
    pruned, left = shrink(model)
    images = rng.random((4, 8, 8, 1)).astype("float32")
    np.testing.assert_allclose(model.predict(images, verbose=0), pruned(images), atol=1e-5)
    shares = [r.weight for r in regularizers_of(model).values()]
    assert [r.weight for r in regularizers_of(pruned).values()] == shares
    assert [x.name for x in pruned.layers if "spread" in x.name or "part" in x.name] == []
    wanted = plan(model, 0.0).sizes
    for name, sizes in left.of_base(plan(pruned, 0.0)).sizes.items():
        assert all(size in (0, kept) for size, kept in zip(sizes, wanted[name], strict=True))
