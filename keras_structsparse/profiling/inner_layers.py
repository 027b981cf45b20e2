"""The layers whose kernels may be removed without changing what the outputs of a network mean."""

from __future__ import annotations

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


def _has_kernel(call: Call, mixing: set[int]) -> bool:
    return id(call) in mixing and bool(getattr(call.operation, "weights", ()))
