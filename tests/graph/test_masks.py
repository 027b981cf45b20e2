"""Masks that are followed through a graph are those that Keras hands on when the model runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from helpers_masks import STEPS, MaskedNetwork, masked_batch
from keras import layers as L
from keras import ops

from keras_structsparse.graph.functional_graph import read
from keras_structsparse.graph.mask_terms import Terms
from keras_structsparse.graph.masked_steps import with_masked_steps
from keras_structsparse.graph.masks import follow

pytestmark = pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")


def outputs_one_by_one(model: keras.Model) -> Iterator[tuple[Any, Any]]:
    """Each symbolic tensor of a model without nested ones, with its value when the model runs."""
    graph = read(model)
    tensors = [graph.tensors[i] for call in graph.calls for i in call.outputs]
    probe = keras.Model(model.inputs, tensors)
    numbers = [i for call in graph.calls for i in call.outputs]
    yield from zip(numbers, probe(masked_batch(0), training=False), strict=True)


def flat(x: Any, words: Any) -> list[Any]:
    a, b = L.Dense(4)(x), L.Dense(4)(L.Embedding(5, 4, mask_zero=True)(words))
    free = L.Conv1D(4, 3, padding="same")(x)
    sums = [a + b, L.Add()([a, b]), L.Add()([a, free]), L.Multiply()([a, b]), L.Maximum()([a, b])]
    joins = [L.Concatenate()([a, free]), L.Concatenate(axis=1)([a, b]), L.Concatenate()([a, a])]
    parts = [a[..., :2], L.Reshape((STEPS, 4))(a), L.Dropout(0.5)(b), L.BatchNormalization()(a)]
    states = [L.SimpleRNN(2)(a), L.Bidirectional(L.SimpleRNN(2, return_sequences=True))(b)]
    return [*sums, *joins, *parts, *states, L.Attention()([a, b]), L.TimeDistributed(L.Dense(2))(b)]


class Marks(L.Layer):
    """Hands on the mask of a layer inside, without saying so."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.inner = L.Masking(value)

    def call(self, x: Any, mask: Any = None) -> Any:
        return self.inner(x)


def test_which_tensors_have_masks() -> None:
    values, words = keras.Input((STEPS, 3)), keras.Input((STEPS,), dtype="int32")
    model = keras.Model([values, words], flat(L.Masking()(values), words))
    found = follow(read(model))
    masks = {i: getattr(t, "_keras_mask", None) for i, t in outputs_one_by_one(model)}
    assert {i for i, mask in masks.items() if mask is not None} == found.beside.keys()


def test_equal_terms_are_equal_masks() -> None:
    """And other terms are other masks, unless values happen to agree."""
    values, words = keras.Input((STEPS, 3)), keras.Input((STEPS,), dtype="int32")
    model = keras.Model([values, words], flat(L.Masking()(values), words))
    found = follow(read(model))
    by_term: dict[int, Any] = {}
    for index, tensor in outputs_one_by_one(model):
        if index in found.beside:
            mask = np.asarray(tensor._keras_mask)
            other = by_term.setdefault(found.beside[index], mask)
            np.testing.assert_array_equal(mask, other)
    assert len({mask.tobytes() for mask in by_term.values()}) > 3


@pytest.mark.parametrize("given", [False, True])
def test_layers_of_a_user_make_masks_of_their_own(given: bool) -> None:
    """Layers of one type make different masks of the same tensor, also of a mask given to them."""
    values = keras.Input((STEPS, 3))
    options = {"mask": ops.any(values > 0, -1)} if given else {}
    outputs = [Marks(v)(values, **options) for v in (0.0, 1.0)]
    graph = read(keras.Model(values, outputs))
    found = follow(graph)
    assert len({found.beside[i] for i in graph.outputs}) == 2


def test_attention_takes_masks_off() -> None:
    """Keras does so: who reads the tensor later finds none."""
    words = keras.Input((STEPS,), dtype="int32")
    x = L.Embedding(5, 4, mask_zero=True)(words)
    y = L.MultiHeadAttention(1, 2)(x, x)
    model = keras.Model(words, L.Add()([x, y]))
    graph = read(model)
    found = follow(graph)
    (total,) = (call for call in graph.calls if isinstance(call.operation, L.Add))
    assert total.outputs[0] not in found.beside
    assert getattr(model(masked_batch(0)[1]), "_keras_mask", None) is None


def test_nested_models_are_opened_with_the_masks_that_reach_them() -> None:
    values = keras.Input((STEPS, 3))
    inner = keras.Sequential([keras.Input((STEPS, 3)), L.Dense(4, name="in"), L.LSTM(2)])
    graph = read(keras.Model(values, inner(L.Masking()(values))))
    (reader,) = (call for call in graph.calls if isinstance(call.operation, L.LSTM))
    assert follow(graph).reads(reader)


def test_networks_without_masks_have_none() -> None:
    values = keras.Input((STEPS, 3))
    x = L.GlobalAveragePooling1D()(L.Concatenate()([L.Dense(2)(values), ops.relu(values)]))
    found = follow(read(keras.Model(values, x)))
    assert (dict(found.beside), dict(found.received)) == ({}, {})


@pytest.mark.parametrize("seed", range(3))
def test_two_copies_have_the_same_terms(seed: int) -> None:
    model = MaskedNetwork(seed, recurrent=False).model
    graph, terms = read(model), Terms()
    found = follow(graph, terms).beside
    assert found == follow(read(model), terms).beside
    assert found != follow(graph, terms, lambda index: ("other", index)).beside


def test_masked_steps_keep_one_step_and_one_sample() -> None:
    values = keras.Input((STEPS, 3))
    model = keras.Model(values, L.Masking(2.0)(values))
    (steps,) = with_masked_steps(model, [np.ones((5, STEPS, 3))], seed=0)
    masked = (steps == 2.0).all(axis=-1)
    assert masked.any()
    assert not masked.all(axis=1).any()
    assert not masked[-1].any()
