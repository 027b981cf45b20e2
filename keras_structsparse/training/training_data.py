"""What a training can be given: arrays, a ``tf.data.Dataset`` or a ``keras.utils.PyDataset``."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import keras
import numpy as np

from keras_structsparse._typing import Array

Arrays = tuple[Array, Array]
"""Inputs (examples, ...) and labels (examples,), or nested structures of such arrays."""

Data = Any
"""`Arrays`; or a ``tf.data.Dataset`` or ``keras.utils.PyDataset`` of batches of both."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Training data with the number of steps of an epoch.

    Attributes:
        x: Inputs, or a data set that gives batches of inputs and labels.
        y: Labels; None where ``x`` gives them.
        steps: Steps per epoch.

    Examples:
        >>> import numpy as np
        >>> TrainingData.of((np.zeros((20, 3)), np.zeros(20)), batch_size=8).steps
        3
    """

    x: Any
    y: Any
    steps: int

    @classmethod
    def of(cls, data: Data, batch_size: int) -> Self:
        """Read how many steps an epoch has.

        Args:
            data: Arrays (inputs, labels), a ``tf.data.Dataset`` or a ``keras.utils.PyDataset``.
            batch_size: Examples per step, for arrays; data sets have batches of their own.

        Raises:
            ValueError: The data are of another kind, or an epoch has no known number of steps.
        """
        if isinstance(data, keras.utils.PyDataset):
            return cls(data, None, _known(data.num_batches))
        if hasattr(data, "cardinality"):  # a tf.data.Dataset; TensorFlow need not be there
            return cls(data, None, _known(int(data.cardinality())))
        if isinstance(data, tuple | list) and len(data) == 2:
            x, y = data
            return cls(x, y, -(-_examples(x, y) // batch_size))
        raise ValueError(
            "train: expected arrays (inputs, labels), a tf.data.Dataset or a "
            f"keras.utils.PyDataset. Received: {type(data).__name__}"
        )

    def options(self, batch_size: int, shuffle: bool) -> dict[str, Any]:
        """The arguments of ``model.fit`` that depend on the kind of data.

        Args:
            batch_size: Examples per step, for arrays.
            shuffle: Whether arrays, and the batches of a ``PyDataset``, are shuffled.
        """
        if self.y is not None:
            return {"batch_size": batch_size, "shuffle": shuffle}
        return {"shuffle": shuffle and isinstance(self.x, keras.utils.PyDataset)}

    def in_order(self, batch_size: int, seed: int, epoch: int) -> TrainingData:
        """Data whose batches depend on a seed and on the number of the epoch alone.

        So a training that is stopped and continued sees the batches of one that is not. It holds
        for arrays; other data are as they are.

        Args:
            batch_size: Examples per step.
            seed: The seed.
            epoch: The number of the first epoch.
        """
        if self.y is None:
            return self
        return replace(self, x=InOrder(self.x, self.y, batch_size, seed, epoch), y=None)

    def some_batches(
        self, count: int, batch_size: int, rng: np.random.Generator | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """Some batches of inputs, targets and, where data sets have them, sample weights.

        Those of arrays and of a ``PyDataset`` are drawn at random.

        Args:
            count: Their number, at most that of an epoch.
            batch_size: Examples per batch, for arrays.
            rng: Draws them; by default one that Keras' ``set_random_seed`` seeds.
        """
        count = min(count, self.steps)
        draw = (rng or np.random.default_rng(random.getrandbits(64))).permutation
        if self.y is not None:
            examples = _examples(self.x, self.y)
            order = draw(examples)
            for start in range(0, min(count * batch_size, examples), batch_size):
                chosen = order[start : start + batch_size]
                pick = partial(_taken, chosen)
                yield keras.tree.map_structure(pick, self.x), keras.tree.map_structure(pick, self.y)
        elif isinstance(self.x, keras.utils.PyDataset):
            for number in draw(self.steps)[:count]:
                yield tuple(self.x[int(number)])
        else:
            for batch in itertools.islice(self.x, count):
                yield tuple(batch)


class InOrder(keras.utils.PyDataset):
    """Batches of arrays, in an order that a seed and the number of the epoch decide.

    Args:
        x: Inputs (examples, ...), or a structure of them.
        y: Labels, likewise.
        batch_size: Examples per batch.
        seed: The seed.
        epoch: The number of the first epoch.
    """

    def __init__(self, x: Any, y: Any, batch_size: int, seed: int, epoch: int) -> None:
        super().__init__()
        self._arrays = keras.tree.map_structure(_as_keras_takes_it, (x, y))
        self._examples, self._batch_size = _examples(x, y), batch_size
        self._seed, self._epoch = seed, epoch
        self._draw()

    def __len__(self) -> int:
        return -(-self._examples // self._batch_size)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        chosen = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        return tuple(keras.tree.map_structure(partial(_taken, chosen), self._arrays))

    def on_epoch_end(self) -> None:
        """Draw the order of the next epoch."""
        self._epoch += 1
        self._draw()

    def _draw(self) -> None:
        self._order = np.random.default_rng((self._seed, self._epoch)).permutation(self._examples)


def _as_keras_takes_it(array: Any) -> Array:
    """The array, with floating-point numbers as Keras casts them."""
    found = np.asarray(array)
    return found.astype(keras.config.floatx(), copy=False) if found.dtype.kind == "f" else found


def _taken(chosen: Array, array: Array) -> Array:
    return np.asarray(array)[chosen]


def _examples(x: Any, y: Any) -> int:
    """How many examples there are: as many inputs as labels, and at least one."""
    counts = []
    for name, arrays in (("inputs", x), ("labels", y)):
        flat = keras.tree.flatten(arrays)
        if not flat or not all(getattr(array, "shape", ()) for array in flat):
            raise ValueError(
                f"train: expected {name} as an array of shape (examples, ...) or a structure of "
                f"them. Received: {type(arrays).__name__}"
            )
        counts.append({int(array.shape[0]) for array in flat})
    different = set.union(*counts)
    if len(different) > 1 or 0 in different:
        raise ValueError(
            "train: expected as many inputs as labels, at least one. Received: "
            f"{sorted(counts[0])} inputs and {sorted(counts[1])} labels"
        )
    return different.pop()


def _known(steps: int | None) -> int:
    """The number of batches, if it is one.

    Keras says None for a PyDataset without end; TensorFlow -1 for a data set without end, -2 where
    it does not know the number.
    """
    if steps is None or steps < 1:
        received = {0: "no", -2: "an unknown number of"}.get(-1 if steps is None else steps)
        raise ValueError(
            "train: expected a data set with a known number of batches per epoch, at least one; "
            "data.take(n) and tf.data.experimental.assert_cardinality(n) set it. "
            f"Received: {received or 'infinitely many'} batches"
        )
    return steps


def joined_inputs(batches: Iterable[tuple[Any, ...]]) -> Any:
    """The inputs of some batches as arrays, nested as the model takes them.

    Args:
        batches: Batches of inputs and more, at least one.

    Examples:
        >>> joined_inputs([(np.zeros((2, 3)), np.ones(2)), (np.zeros((1, 3)), np.ones(1))]).shape
        (3, 3)
    """
    parts = [keras.tree.map_structure(keras.ops.convert_to_numpy, own[0]) for own in batches]
    return keras.tree.map_structure(lambda *arrays: np.concatenate(arrays), *parts)
