"""What surgery would leave of a network, counted without building it.

Rebuilding a network takes a quarter of a second and more: too long for a look after every few
steps of training. Here only the widths and sizes are followed, in a few milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels.costs import REALIZE
from keras_structsparse.graph.functional_graph import Call, Graph
from keras_structsparse.graph.prunable_layers import kernel_layers
from keras_structsparse.profiling import multiply_adds

Sizes = Mapping[str, Sequence[int]]
Masks = dict[int, Array]


def remaining(network: Graph, sizes: Sizes, realize: str = "auto") -> dict[str, int]:
    """The multiply-adds (eq. 10) of each layer that surgery would leave, approximately.

    A channel counts as live where a kernel that stays reads a live channel, and passes through
    layers of one width; all sides of a sum keep the channels of the sum. Layers are cropped to
    their largest kernels, or split where that pays, as :func:`prune` does. Carriers of constants
    and windows that stay larger to do without padding are left out.

    Args:
        network: The graph of the model.
        sizes: The sizes of the kernels, by layer; layers not named stay as they are.
        realize: As for :func:`prune`.

    Returns:
        By name of the layer; layers without multiply-adds are left out.

    Raises:
        ModelError: The size of a map is open.

    Examples:
        >>> import keras
        >>> from keras_structsparse.graph.functional_graph import read
        >>> stack = [keras.layers.Conv2D(4, 3, padding="same", name=name) for name in ("a", "b")]
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), *stack])
        >>> remaining(read(model), {"a": (3, 0, 2, 0)})
        {'a': 1152, 'b': 4608}
    """
    layers = kernel_layers(network)
    kernels = {id(c): _sizes(network, c, sizes) for c in network.calls if c.name in layers}
    kept = _kept(network, _live(network, kernels), kernels)
    shapes = dict(enumerate(network.shapes))
    found: dict[str, int] = {}
    for call in network.calls:
        if getattr(call.operation, "weights", ()):
            whole = multiply_adds.multiply_adds(call.operation, call, shapes) or 0
            left = round(whole * _share(call, kept, kernels.get(id(call)), whole, realize))
            found[call.name] = found.get(call.name, 0) + left
    return {name: work for name, work in found.items() if work}


def _sizes(network: Graph, call: Call, sizes: Sizes) -> Array:
    """The sizes of a layer's kernels; whole where surgery leaves the layer as it is."""
    shape = tuple(call.operation.kernel.shape)
    whole = np.full(shape[-1], max(shape[:-2], default=1))
    fixed = network.is_shared(call) or call.outputs[0] in network.outputs
    return whole if fixed else np.asarray(sizes.get(call.name, whole))


# --- channels ---


def _live(network: Graph, kernels: Masks) -> Masks:
    """Which channels of each tensor depend on the input."""
    widths = _widths(network)
    live = {i: np.ones(widths[i], bool) for i in network.inputs}
    for call in network.calls:
        inputs = [live[i] for i in call.inputs]
        for i in call.outputs:
            if id(call) in kernels:
                live[i] = (kernels[id(call)] > 0) & inputs[0].any()
            else:
                live[i] = _passed(inputs, widths[i])
    return live


def _passed(inputs: Sequence[Array], width: int) -> Array:
    """The live channels behind a layer without kernels, by the widths of its inputs alone."""
    widths = [len(side) for side in inputs]
    if set(widths) == {width}:
        return np.any(inputs, axis=0)
    if sum(widths) == width:
        return np.concatenate(inputs)
    if len(inputs) == 1 and width % widths[0] == 0:
        return np.tile(inputs[0], width // widths[0])  # Flatten: positions, then channels.
    return np.ones(width, bool)


def _kept(network: Graph, live: Masks, kernels: Masks) -> Masks:
    """The live channels that something reads, and those that a sum needs on all its sides."""
    kept = {i: live[i] & (i in network.outputs) for i in live}
    for call in reversed(network.calls):
        below = np.any([kept[i] for i in call.outputs], axis=0)
        for i in call.inputs if below.any() else ():
            through = id(call) not in kernels and len(kept[i]) == len(below)
            # A side of constants leaves its sum.
            wanted = below & live[i].any() if through else live[i]
            kept[i] = kept[i] | wanted
    return kept


def _widths(network: Graph) -> list[int]:
    """The number of channels of each tensor."""
    first = any(multiply_adds.channel_axis(call.operation) == 1 for call in network.calls)
    axes = [1 if first and len(shape) > 2 else -1 for shape in network.shapes]
    return [
        (shape[axis] if shape else None) or 1
        for shape, axis in zip(network.shapes, axes, strict=True)
    ]


# --- multiply-adds ---


def _share(call: Call, kept: Masks, sizes: Array | None, whole: int, realize: str) -> float:
    """The share of a layer's multiply-adds that is left."""
    outputs = kept[call.outputs[0]]
    if sizes is None:
        return float(outputs.mean())
    shape = tuple(call.operation.kernel.shape)
    left = np.maximum(np.sort(sizes[outputs]), 1)
    inputs = int(kept[call.inputs[0]].sum())
    entries = _entries(shape[:-2], inputs, left, whole // math.prod(shape), realize)
    return entries / math.prod(shape)


def _entries(shape: Sequence[int], inputs: int, sizes: Array, places: int, realize: str) -> int:
    """The entries of the kernels that are left, as surgery would cut the layer."""
    realization = REALIZE[realize]

    def area(size: int) -> int:
        return math.prod(min(side, size) for side in shape)

    def price(size: int, kernels: int) -> float:
        return realization.costs.convolution(places, area(size), inputs, kernels)

    segments = realization.cut(sizes.tolist(), price) if len(sizes) else []
    return inputs * sum((stop - start) * area(int(sizes[stop - 1])) for start, stop in segments)
