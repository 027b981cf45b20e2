"""Bare operations: the arguments that rules know, those they do not, and sizes left open."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import (
    TOLERANCE,
    assert_exact_surgery,
    assert_same_function,
    difference,
    random_batch,
    randomize,
    use_float64,
)
from keras import layers as L
from keras import ops

from keras_structsparse.graph.bare_operations import operation_type
from keras_structsparse.graph.channels import registry
from keras_structsparse.graph.channels.rule import Flow, Piece, Rule, Site, only
from keras_structsparse.surgery import RULES, prune
from keras_structsparse.surgery.plans import Plan, masked
from keras_structsparse.surgery.provenance import notes

PLAN = Plan({"first": [3, 0, 2, 0, 0, 1]})
BARE = [k for k in RULES if isinstance(k, type) and not issubclass(k, keras.Layer)]


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


def network(body: Callable[[Any], Any], sizes: tuple[int | None, ...] = (8, 6)) -> keras.Model:
    """A convolution of six kernels that keeps the sizes, a body, and a dense layer."""
    inputs = keras.Input((*sizes, 2))
    x = L.Conv2D(6, 3, padding="same", activation="sigmoid", name="first")(inputs)
    return randomize(keras.Model(inputs, L.Dense(2, "tanh")(body(x))))


@pytest.mark.parametrize("kind", BARE, ids=lambda kind: kind.__name__)
def test_what_a_rule_understands_is_an_argument(kind: type[keras.Operation]) -> None:
    own = inspect.signature(kind.__init__).parameters
    called = inspect.signature(kind.call).parameters
    known = registry._understood[kind]
    if known is not None and kind in SINGLE:
        assert known <= {*own, *called}


SINGLE = {kind for kind in BARE if sum(RULES[kind] is rule for rule in RULES.values()) == 1}

KNOWN = [
    lambda x: ops.leaky_relu(x, 0.3),
    lambda x: ops.gelu(x, approximate=False),
    lambda x: ops.clip(x, 0.2, 0.6),
    lambda x: ops.round(x * 100.0, 1),
    lambda x: ops.max(x, axis=(1, 2)),
    lambda x: ops.mean(x, axis=[2], keepdims=True),
    lambda x: ops.var(x, -2),
    lambda x: ops.sum(x, axis=1),
    lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 0), (0, 0)), "reflect"),
    lambda x: L.Conv2D(3, 2)(ops.pad(x, ((0, 0), (1, 2), (0, 0), (0, 0)), constant_values=0.0)),
    lambda x: ops.expand_dims(x, 1),
    lambda x: ops.expand_dims(x, -3),
    lambda x: ops.roll(x, 3, axis=1),
    lambda x: ops.repeat(x, 2, axis=2),
    lambda x: ops.take(x, [5, -6, 0], axis=-1),
    lambda x: ops.split(x, [2, 3], axis=-1)[2],
    lambda x: x[:, None, ..., :6],
    lambda x: x[:, -3:],
    lambda x: x[:, 3, :4:2],
    lambda x: x[..., -4, :],
    lambda x: ops.reshape(x, (-1, 6)),
    lambda x: ops.reshape(x, (-1, 2, 4, 6, 6)),
    lambda x: ops.reshape(ops.reshape(x, (-1, 6, 6)), (-1, 8, 6, 6)),
]
UNKNOWN = [
    lambda x: ops.max(x, axis=1, initial=0.7),
    lambda x: ops.min(x, axis=(1, 2), initial=0.2),
    lambda x: ops.sum(x, axis=-1, keepdims=True),
    lambda x: ops.mean(x, axis=(1, 3)),
    lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 0), (0, 0)), constant_values=0.5),
    lambda x: ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, 1))),
    lambda x: ops.clip(x, 0.2, np.linspace(0.3, 0.8, 6)),
    lambda x: ops.expand_dims(x, -1),
    lambda x: ops.roll(x, 1, axis=-1),
    lambda x: ops.repeat(x, 2, axis=-1),
    lambda x: ops.flip(x, axis=-1),
    lambda x: ops.flip(x),
    lambda x: ops.where(x > 0.5, x, 0.3),
    lambda x: ops.cumsum(x, axis=-1),
    lambda x: ops.average(x, axis=1, weights=ops.convert_to_tensor(np.linspace(0, 1, 8))),
    lambda x: ops.take(x, [0, 3], axis=1),
    lambda x: ops.split(x, 2, axis=1)[1],
    lambda x: x[:, 2:5, :, 1:],
    lambda x: x[..., None],
    lambda x: ops.matmul(ops.swapaxes(x, -1, -2), x),
    lambda x: ops.reshape(x, (-1, 8, 12, 3)),
    lambda x: ops.reshape(x, (-1, 36)),
    lambda x: x * np.linspace(0.1, 1.0, 6),
    lambda x: ops.maximum(x, np.linspace(0.1, 1.0, 6)),
]


@pytest.mark.parametrize("body", KNOWN)
def test_known_arguments_are_followed(body: Callable[[Any], Any]) -> None:
    pruned = assert_exact_surgery(network(body), PLAN)
    assert pruned.get_layer("first").filters < 6
    assert not notes(pruned)


@pytest.mark.parametrize("body", UNKNOWN)
def test_with_other_arguments_the_operation_stays(body: Callable[[Any], Any]) -> None:
    pruned = assert_exact_surgery(network(body), PLAN)
    assert any("kept as it is" in note for note in notes(pruned)[:1])


OPEN: list[tuple[Callable[[Any], Any], bool]] = [
    (lambda x: x[:, -3:], True),
    (lambda x: x[:, :3, ..., :6], True),
    (lambda x: x[:, 7], True),
    (lambda x: x[:, ::2], True),
    (lambda x: x[:, ::-1], True),
    (lambda x: x[..., 0, :], True),
    (lambda x: x[:, :, :, 1:5], True),
    (lambda x: x[:, 2:, :, 1:5], False),
    (lambda x: x[:, 0:, None, :, 1:5], False),
    (lambda x: ops.take(x, [1, 3], axis=1), False),
    (lambda x: ops.take(x, [0, 3], axis=3), True),
    (lambda x: ops.reshape(x, (-1, 6)), True),
    (lambda x: L.Conv2D(3, 2)(ops.pad(x, ((0, 0), (3, 0), (0, 2), (0, 0)))), True),
    (lambda x: ops.sum(x, axis=1), False),
    (lambda x: ops.mean(x, axis=1), True),
    (lambda x: L.Reshape((-1, 6))(x), True),
    (lambda x: L.Reshape((6, -1, 6))(x), True),
    (lambda x: L.Cropping2D(((2, 1), (0, 3)))(x), True),
    (lambda x: L.UpSampling2D((2, 1))(x), True),
    (lambda x: L.Permute((2, 1, 3))(x), True),
    (lambda x: L.Conv2D(6, 4, strides=3, padding="same")(x), True),
    (lambda x: L.MaxPooling2D(2, padding="same")(x), True),
    (lambda x: L.GlobalAveragePooling2D()(x), True),
    (lambda x: L.Resizing(5, 4, "nearest")(x), True),
]


@pytest.mark.parametrize(("body", "followed"), OPEN)
def test_open_sizes(body: Callable[[Any], Any], followed: bool) -> None:
    model = network(body, (None, None))
    reference, pruned = masked(model, PLAN), prune(model, PLAN)
    for size in (9, 20):
        batch = np.random.default_rng(0).normal(size=(13, size, 12, 2))
        assert_same_function(reference, pruned, batch)
        assert difference(model, pruned, batch) > 1e3 * TOLERANCE
    assert (pruned.get_layer("first").filters < 6) == followed


def test_a_rule_of_a_user_says_what_it_understands(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = operation_type(lambda x: ops.nan_to_num(x))

    def flow(site: Site) -> Flow:
        return Flow(site.inputs[0])

    def build(site: Site, wanted: Any, pieces: Any) -> Piece:
        piece = only(pieces)
        return Piece(ops.nan_to_num(piece.tensor, nan=site.operation.nan), piece.order)

    model = network(lambda x: ops.nan_to_num(x, nan=1.0))
    for understands in ((), ("nan",)):
        with monkeypatch.context() as patch:
            patch.setattr(registry, "_rules", dict(registry._rules))
            patch.setattr(registry, "_understood", dict(registry._understood))
            registry.register(Rule(flow, build), kind, understands=understands)
            pruned = assert_exact_surgery(model, PLAN)
        assert bool(notes(pruned)) == (not understands)
        assert all("its argument 'nan'" in note for note in notes(pruned)[:1])


def test_moved_rows_with_another_width_are_found() -> None:
    """The control: if the new shape kept the old width, samples would be mixed up in silence."""
    x = np.random.default_rng(0).normal(size=(12, 8, 6))
    kept = x[..., [0, 2, 5]]
    right = ops.reshape(ops.reshape(kept, (-1, 3)), (-1, 8, 3))
    wrong = ops.reshape(kept, (-1, 6))
    assert right.shape == kept.shape
    assert wrong.shape[0] != ops.reshape(x, (-1, 6)).shape[0]


def test_batches_of_maps_through_time() -> None:
    """Every frame goes through a network for images, as part of the batch."""
    inputs = keras.Input((3, 8, 6, 2))
    x = L.Conv2D(6, 3, activation="relu", name="first")(ops.reshape(inputs, (-1, 8, 6, 2)))
    x = ops.reshape(L.GlobalMaxPooling2D()(x), (-1, 3, 6))
    model = randomize(keras.Model(inputs, L.LSTM(2)(L.Dense(4, name="second")(x))))
    plan = Plan({**PLAN.sizes, "second": [1, 0, 1, 1]})
    pruned = assert_exact_surgery(model, plan)
    assert pruned.get_layer("second").kernel.shape == (3, 3)
    assert pruned(random_batch(model)).shape == (13, 2)
