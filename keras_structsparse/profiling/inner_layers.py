"""The layers whose kernels may be removed without changing what the outputs of a network mean."""

from __future__ import annotations

import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.functional_graph import Call
from keras_structsparse.graph.prunable_layers import PrunableLayers


def inner_layers(found: PrunableLayers) -> tuple[str, ...]:
    """The prunable layers that other layers with kernels read on all ways to the outputs.

    The kernels of the other ones compute a class or a value that is predicted, even if an
    activation, a pooling, a depthwise convolution or a sum comes after them.

    Args:
        found: The prunable layers of the model.

    Returns:
        Their names, in topological order.

    Examples:
        >>> import keras
        >>> stack = [keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2, name="head")]
        >>> inner_layers(PrunableLayers.of(keras.Sequential([keras.Input((3,)), *stack])))
        ('hidden',)
    """
    makers = {index: call for call in found.graph.calls for index in call.outputs}
    mixing = {id(step.call) for step in found.channels.steps if step.mixes and not step.singles}
    waiting, seen, last = list(found.graph.outputs), set[int](), set[str]()
    while waiting:
        index = waiting.pop()
        if index in seen or index not in makers:
            continue
        seen.add(index)
        call = makers[index]
        if call.name in found.layers:
            last.add(call.name)
        if not _has_kernel(call, mixing):
            waiting.extend(call.inputs)
    return tuple(name for name in found.layers if name not in last)


def read_depthwise(found: PrunableLayers) -> frozenset[str]:
    """The prunable layers whose channels are read by depthwise convolutions alone.

    A depthwise kernel that is removed leaves a constant, and takes the kernel before it along. So
    the kernels of these layers need not be removed themselves.

    Args:
        found: The prunable layers of the model.

    Examples:
        >>> import keras
        >>> stack = [keras.layers.Conv2D(4, 1, name="a"), keras.layers.DepthwiseConv2D(3, name="b")]
        >>> read_depthwise(PrunableLayers.of(keras.Sequential([keras.Input((8, 8, 1)), *stack])))
        frozenset({'a'})
    """
    steps = found.channels.steps
    single, others = (
        {int(i) for s in steps if s.mixes and s.singles == alone for ids in s.inputs for i in ids}
        for alone in (True, False)
    )
    kept = set(np.flatnonzero(found.channels.kept).tolist())
    return frozenset(
        step.call.name
        for step in steps
        if step.call.name in found.layers
        and set(step.outputs[0].tolist()) <= single - others - kept
        and not _is_joined(found, step.outputs[0])
    )


def _is_joined(found: PrunableLayers, channels: Array) -> bool:
    """Whether a sum or a product keeps some of these channels together with others."""
    return any(np.isin(channels, ids).any() for step in found.channels.steps for ids in step.merged)


def _has_kernel(call: Call, mixing: set[int]) -> bool:
    return id(call) in mixing and bool(getattr(call.operation, "weights", ()))
