"""Multiply-adds and parameters of networks, layer by layer, before and after surgery."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping, Sequence

import keras

from keras_structsparse._typing import Shape
from keras_structsparse.graph.data_format import channel_axis
from keras_structsparse.graph.functional_graph import Call, Graph, read
from keras_structsparse.graph.left_out import left_out
from keras_structsparse.graph.prunable_layers import ModelLike, graph_of, kernel_layers
from keras_structsparse.profiling import multiply_adds
from keras_structsparse.profiling.summaries import (
    Comparison,
    LayerComparison,
    LayerProfile,
    Profile,
)
from keras_structsparse.surgery import provenance, weight_origins

__all__ = ["Comparison", "LayerComparison", "LayerProfile", "Profile", "compare", "profile"]


def profile(
    model: ModelLike, input_shape: Sequence[int] | Sequence[Sequence[int]] | None = None
) -> Profile:
    """Count the multiply-adds (eq. 10) and weights of a network.

    A convolution computes ``positions x inputs x kernels x size`` multiply-adds, with the positions
    of its output map; in a grouped layer the inputs are those of one group. A transposed
    convolution has the positions of its input map instead, since each of its entries is multiplied
    by the whole kernel. Zero padding is counted like data. Biases, activations and normalisations
    are not counted. Products of tensors in bare operations, such as ``keras.ops.matmul``, and
    layers whose work is not known are listed as not counted: then the total is too small.

    Args:
        model: A functional or built Sequential model, or its prunable layers.
        input_shape: (height, width, channels), if the model leaves them open; for a model with
            several inputs one such shape each, in the order of ``model.inputs``.

    Returns:
        The profile for one example.

    Raises:
        ModelError: The model has no graph, a layer's size is open, or ``input_shape`` does not
            fit the model.

    Examples:
        >>> from keras import layers as kl
        >>> inputs = keras.Input((8, 8, 3))
        >>> model = keras.Model(inputs, kl.Conv2D(8, 3, padding="same", name="conv")(inputs))
        >>> counted = profile(model)
        >>> counted.multiply_adds == 8 * 8 * 3 * 3 * 3 * 8, counted.params == 3 * 3 * 3 * 8 + 8
        (True, True)
    """
    network = graph_of(model)
    shapes = multiply_adds.shapes_of(network, input_shape)
    seen: set[int] = set()
    layers = set(network.layers())
    calls = (
        call
        for call in network.calls
        if call in layers or type(call.operation) in multiply_adds.PRODUCTS
    )
    found = [_layer_profile(network, call, shapes, seen) for call in calls]
    return Profile(tuple(x for x in found if x.kernels or x.params or not x.counted))


def compare(
    model: keras.Model,
    pruned: keras.Model,
    notes: Sequence[str] | None = None,
    input_shape: Sequence[int] | Sequence[Sequence[int]] | None = None,
) -> Comparison:
    """List the costs of a network before and after surgery, layer by layer.

    Args:
        model: The network before, or a loaded copy of it.
        pruned: The network after. If :func:`keras_structsparse.prune` made it of ``model``, also in
            another process, all that became of a layer is in the row of that layer. If not, or if
            a version without this record made it, layers are matched by name, with "_" for "/".
        notes: Sentences to show with it; those of surgery unless given.
        input_shape: As in :func:`profile`.

    Returns:
        The comparison.

    Raises:
        ModelError: As in :func:`profile`.

    Examples:
        >>> from keras import layers as kl
        >>> inputs = keras.Input((8, 8, 3))
        >>> dense, small = (
        ...     keras.Model(inputs, kl.Conv2D(n, 3, name="conv")(inputs)) for n in (8, 2)
        ... )
        >>> compare(dense, small).multiply_adds_fraction
        0.25
    """
    whole = profile(model, input_shape)
    before, after = (
        [layer for layer in each.layers if layer.kernels or layer.params]
        for each in (whole, profile(pruned, input_shape))
    )
    owners = _owners(model, pruned, before, after)
    parts: dict[str | None, list[LayerProfile]] = collections.defaultdict(list)
    for layer in after:
        parts[owners.get(layer.name)].append(layer)
    rows = [_change(layer, *parts.pop(layer.name, ())) for layer in before]
    rows += [_change(_ABSENT, layer) for rest in parts.values() for layer in rest]
    said = provenance.notes(pruned) if notes is None else notes
    graph = read(model)
    rest = left_out(graph, list(kernel_layers(graph)))
    return Comparison(tuple(rows), tuple(said), rest, whole.not_counted)


def _owners(
    model: keras.Model,
    pruned: keras.Model,
    before: Sequence[LayerProfile],
    after: Sequence[LayerProfile],
) -> Mapping[str, str]:
    """By name of the layers after surgery, the name of the layer before that they belong to."""
    try:
        return weight_origins.between(model, pruned).layers
    except ValueError:  # another model, or one without a record
        names: dict[str, collections.deque[str]] = collections.defaultdict(collections.deque)
        for layer in before:
            names[_flat(layer.name)].append(layer.name)
        flat = {layer.name: _flat(layer.name) for layer in after}
        return {name: names[own].popleft() for name, own in flat.items() if names[own]}


def _flat(name: str) -> str:
    return name.replace("/", "_")


_ABSENT = LayerProfile("", "", 0, (), (), 0, 0)


def _change(before: LayerProfile, *parts: LayerProfile) -> LayerComparison:
    after = sorted(parts or [_ABSENT], key=lambda part: math.prod(part.size), reverse=True)
    return LayerComparison(
        name=before.name or after[0].name,
        kind=before.kind or after[0].kind,
        kernels=(before.kernels, sum(part.kernels for part in after)),
        size=(before.size, after[0].size),
        multiply_adds=(before.multiply_adds, sum(part.multiply_adds for part in after)),
        params=(before.params, sum(part.params for part in after)),
        parts=tuple(part.size for part in after) if len(after) > 1 else (),
    )


def _layer_profile(
    network: Graph, call: Call, shapes: Mapping[int, Shape], seen: set[int]
) -> LayerProfile:
    layer, shape = call.operation, shapes[call.outputs[0]]
    work = [multiply_adds.multiply_adds(layer, c, shapes) for c in network.calls_of[id(layer)]]
    weights = getattr(layer, "weights", ())
    own = [weight for weight in weights if id(weight) not in seen]
    seen.update(map(id, own))
    return LayerProfile(
        name=call.name,
        kind=type(layer).__name__,
        kernels=int(shape[channel_axis(layer)] or 0) if any(work) else 0,
        size=_sides(getattr(layer, "kernel_size", ())),
        output_shape=shape[1:],
        multiply_adds=sum(count or 0 for count in work),
        params=sum(math.prod(weight.shape) for weight in own),
        counted=None not in work,
    )


def _sides(size: int | Sequence[int]) -> tuple[int, ...]:
    """The sides of a kernel; layers of other packages may have a single number."""
    return (size,) if isinstance(size, int) else tuple(size)
