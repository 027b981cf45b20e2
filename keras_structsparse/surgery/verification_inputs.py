"""Inputs on which a fault of a rebuilt network can be seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.functional_graph import Graph
from keras_structsparse.graph.masked_steps import with_masked_steps
from keras_structsparse.graph.masks import follow

OPEN_SIZE = 32
"""The size of open axes. Networks that halve their maps five times take it."""

OTHER_SIZES = ((37, 41, 43), (64, 96, 32), (9, 11, 10))
"""Other sizes of open axes, for the first, second and third one: odd, divisible, and small."""

COUNTS = ("input_dim", "num_tokens", "num_classes")
"""The options of layers that say how many whole numbers they take, from 0 on."""


MOVING = (keras.layers.Reshape, keras.layers.Flatten, keras.layers.Permute)
"""Layers that move numbers without a change, of any dtype."""


@dataclass(frozen=True)
class Trial:
    """Inputs for both networks.

    Attributes:
        what: What is special about them.
        inputs: One array per input of the model, the samples first.
    """

    what: str
    inputs: list[Array]


def trials(model: keras.Model, samples: int, seed: int) -> Iterator[Trial]:
    """Inputs that differ in what can hide a fault: values, masked steps, and open sizes.

    Args:
        model: The model.
        samples: Number of samples of each trial.
        seed: Seed.

    Yields:
        First random values; then, if tensors of the model have masks, the same with masked steps;
        then both for other sizes, if the model has open axes besides that of the samples.
    """
    graph = functional_graph.read(model)
    masking = bool(follow(graph).beside)
    is_open = any(None in tensor.shape[1:] for tensor in model.inputs)
    for sizes in ((OPEN_SIZE,) * 3, *(OTHER_SIZES if is_open else ())):
        arrays = _drawn(graph, samples, seed, sizes)
        first = sizes[0] == sizes[1]
        count = max(sum(size is None for size in t.shape[1:]) for t in model.inputs)
        where = f"open sizes {' x '.join(map(str, sizes[:count]))}" if is_open else ""
        yield Trial("random values" if first and not where else where, arrays)
        if masking:
            steps = with_masked_steps(model, arrays, seed)
            yield Trial(f"masked steps{' and ' * bool(where)}{where}", steps)


def random_inputs(model: keras.Model, samples: int, seed: int) -> list[Array]:
    """Random arrays of the shapes of a model's inputs, with 32 for unknown sizes.

    Args:
        model: The model.
        samples: Number of samples.
        seed: Seed.

    Returns:
        One array per input. The samples are standard normal, uniform between 0 and 1, and uniform
        between 0 and 255 in turn, so that some are in the range that the network expects, whether
        it rescales its inputs or not. Integer inputs get whole numbers in the range of the layers
        that read them; else from 0 to 255 for images, and 0 and 1 for others.
    """
    return _drawn(functional_graph.read(model), samples, seed, (OPEN_SIZE,) * 3)


def _drawn(graph: Graph, samples: int, seed: int, sizes: Sequence[int]) -> list[Array]:
    rng = np.random.default_rng(seed)
    arrays = []
    for index in graph.inputs:
        free = iter((*sizes, *[OPEN_SIZE] * 9))
        shape = (samples, *(next(free) if n is None else n for n in graph.shapes[index][1:]))
        counts = _counts(graph, index)
        if "float" not in graph.dtypes[index]:
            arrays.append(rng.integers(0, _least(counts, graph, index), shape))
        elif counts:  # Old files declare the indices of an embedding as floats.
            arrays.append(rng.integers(0, min(counts), shape).astype(float))
        else:
            arrays.append(_mixed(rng, shape))
    return arrays


def _mixed(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    kinds = [rng.normal(size=shape), rng.uniform(size=shape), rng.uniform(0, 255, size=shape)]
    return np.stack([kinds[sample % 3][sample] for sample in range(shape[0])])


def _counts(graph: Graph, tensor: int) -> list[int]:
    """How many whole numbers, from 0 on, each layer takes that reads an input as indices."""
    counts: list[int] = []
    tensors, dtype = [tensor], graph.dtypes[tensor]
    for index in tensors:  # grows
        for call in graph.readers.get(index, ()):
            found = [getattr(call.operation, name, None) for name in COUNTS]
            counts += [count for count in found if isinstance(count, int)]
            if "int" in dtype and not getattr(call.operation, "weights", ()):
                whole = (i for i in call.outputs if "int" in graph.dtypes[i])
                tensors += [i for i in whole if i not in tensors]
            elif type(call.operation) in MOVING:
                tensors += call.outputs
    return counts


def _least(counts: Sequence[int], graph: Graph, tensor: int) -> int:
    """How many whole numbers all readers of an integer input take."""
    is_image = len(graph.shapes[tensor]) > 3 and graph.dtypes[tensor] != "bool"
    return max(min(counts), 1) if counts else 256 if is_image else 2
