"""Random networks over sequences with masks, and sequences with masked steps to try them on."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from helpers_models import randomize
from keras import layers as L
from keras import ops

from keras_structsparse._typing import Array
from keras_structsparse.surgery.plans import Plan, masked

STEPS, SAMPLES, WORDS = 6, 7, 5


class MaskedNetwork:
    """Draws a network: sources with and without masks, layers of all kinds, and readers of masks.

    Args:
        seed: What to draw.
        layers: The number of layers between sources and readers.
        recurrent: Whether recurrent layers and attention are among them; they take longest.
    """

    def __init__(self, seed: int, layers: int = 7, recurrent: bool = True) -> None:
        self.rng = np.random.default_rng(seed)
        self.count = 0
        kinds = [*MERGES, *PASSING, *PASSING, *CUTS]
        kinds += SEQUENTIAL if recurrent else []
        values, words = keras.Input((STEPS, 3)), keras.Input((STEPS,), dtype="int32")
        self.tensors: list[Any] = [values]
        for _ in range(self.rng.integers(1, 3)):
            self.tensors.append(self.source(values, words))
        for _ in range(2):
            self.tensors.append(self.dense(self.draw(self.tensors)))
        for _ in range(layers):
            self.tensors.append(self.draw(kinds)(self))
        found = self.rng.choice(len(self.tensors) - 3, size=2) + 3
        heads = [self.head(self.tensors[i], recurrent) for i in (*found, -1)]
        joined = L.Dense(2, name="last")(L.Concatenate()(heads))
        outputs = [joined, self.tensors[int(found[0])]]
        self.model = randomize(keras.Model([values, words], outputs), seed)

    def draw(self, options: list[Any]) -> Any:
        return options[self.rng.integers(len(options))]

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}_{self.count}"

    def any(self, like: Any = None) -> Any:
        """A tensor; one of the same shape as ``like``, made if there is none."""
        if like is None:
            return self.draw(self.tensors)
        same = [t for t in self.tensors if t.shape == like.shape and t is not like]
        return self.draw(same) if same and self.rng.random() < 0.5 else self.dense(self.any(), like)

    def dense(self, x: Any, like: Any = None) -> Any:
        """A dense layer, as long and wide as another tensor."""
        width = int(self.rng.integers(2, 6)) if like is None else like.shape[-1]
        if like is not None and like.shape[1] != x.shape[1]:
            x = self.tensors[0][:, : like.shape[1]] if like.shape[1] < STEPS else self.tensors[0]
            x = x if x.shape[1] == like.shape[1] else L.ZeroPadding1D((0, like.shape[1] - STEPS))(x)
        activation = self.draw([None, "relu", "sigmoid"])
        return L.Dense(width, activation, name=self.name("dense"))(x)

    def source(self, values: Any, words: Any) -> Any:
        value = float(self.draw([0.0, 0.0, 1.0]))
        kinds = [
            lambda: L.Masking(value)(values),
            lambda: L.Embedding(WORDS, 3, mask_zero=True)(words),
            lambda: nested(L.Masking(value), L.Dense(4, name=self.name("dense")))(values),
        ]
        return self.draw(kinds)()

    def head(self, x: Any, recurrent: bool) -> Any:
        kinds: list[Callable[[Any], Any]] = [
            L.GlobalAveragePooling1D(),
            L.GlobalAveragePooling1D(),
            lambda t: nested(
                L.Dense(3, name=self.name("dense")), L.GlobalAveragePooling1D(), like=t
            )(t),
            L.GlobalMaxPooling1D(),
        ]
        kinds += [L.SimpleRNN(2), L.LSTM(2), L.Bidirectional(L.GRU(2))] if recurrent else []
        return self.draw(kinds)(x)


def nested(*stack: Any, like: Any = None) -> keras.Model:
    shape = (STEPS, 3) if like is None else like.shape[1:]
    return keras.Sequential([keras.Input(shape), *stack])


def inside(network: MaskedNetwork, x: Any) -> Any:
    """A layer in a nested model."""
    return nested(L.Dense(4, "relu", name=network.name("dense")), L.Dropout(0.1), like=x)(x)


def reshaped(x: Any) -> Any:
    """A reshape to the same shape."""
    return L.Reshape(x.shape[1:])(x)


MERGES: list[Callable[[MaskedNetwork], Any]] = [
    lambda n: L.Add()(pair(n)),
    lambda n: L.Add()([*pair(n, x := n.any()), n.any(x)]),
    lambda n: L.Subtract()(pair(n)),
    lambda n: L.Average()(pair(n)),
    lambda n: L.Multiply()(pair(n)),
    lambda n: L.Maximum()(pair(n)),
    lambda n: ops.add(*pair(n)),
    lambda n: ops.add(*pair(n)),
    lambda n: ops.multiply(*pair(n)),
    lambda n: L.Concatenate()(pair(n)),
    lambda n: L.Concatenate()(pair(n)),
    lambda n: ops.concatenate(pair(n), axis=-1),
    lambda n: L.Concatenate(axis=1)(pair(n)),
]

PASSING: list[Callable[[MaskedNetwork], Any]] = [
    lambda n: n.dense(n.any()),
    lambda n: L.Conv1D(4, 3, padding="same", name=n.name("conv"))(n.any()),
    lambda n: L.BatchNormalization()(n.any()),
    lambda n: L.LayerNormalization()(n.any()),
    lambda n: L.ReLU()(n.any()),
    lambda n: L.Activation("tanh")(n.any()),
    lambda n: ops.relu(n.any()),
    lambda n: L.Dropout(0.5)(n.any()),
    lambda n: L.Rescaling(0.5, 1.0)(n.any()),
    lambda n: inside(n, n.any()),
]

CUTS: list[Callable[[MaskedNetwork], Any]] = [
    lambda n: (x := n.any())[..., : max(x.shape[-1] - 2, 1)],
    lambda n: n.dense(n.any())[..., 1:],
    lambda n: n.any()[:, :STEPS],
    lambda n: ops.split(n.dense(n.any()), [1], axis=-1)[1],
    lambda n: L.Permute((1, 2))(n.any()),
    lambda n: reshaped(n.any()),
    lambda n: ops.cast(x := n.any(), x.dtype),
]

SEQUENTIAL: list[Callable[[MaskedNetwork], Any]] = [
    lambda n: L.SimpleRNN(3, return_sequences=True)(n.any()),
    lambda n: L.Bidirectional(L.SimpleRNN(2, return_sequences=True))(n.any()),
    lambda n: L.TimeDistributed(L.Dense(3))(n.any()),
    lambda n: L.MultiHeadAttention(2, 2)(x := n.any(), x),
    lambda n: L.Attention()(pair(n)),
]


def pair(network: MaskedNetwork, x: Any = None) -> list[Any]:
    """Two tensors of one shape."""
    first = network.any() if x is None else x
    return [first, network.any(first)]


def masked_batch(seed: int, samples: int = SAMPLES) -> list[Array]:
    """Values and words, in which some steps are masked by 0, some by 1, and none in one sample."""
    rng = np.random.default_rng(seed)
    values, words = rng.normal(size=(samples, STEPS, 3)), rng.integers(1, WORDS, (samples, STEPS))
    values[:3, 4:], words[:3, 3:] = 0.0, 0
    values[1:5, 1] = 1.0
    values[3, :2], words[4, ::2] = 0.0, 0
    return [values, words]


def build(seed: int, **options: Any) -> keras.Model | None:
    """A network; None where Keras itself cannot build or run what was drawn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras says where it drops a mask
        try:
            model = MaskedNetwork(seed, **options).model
            masked(model, Plan({}))(masked_batch(seed))
        except (ValueError, TypeError):
            return None
    return model
