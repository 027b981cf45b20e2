"""Follow the channels of a network from its inputs to its outputs, by the rules of its layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.errors import DeadNetworkError
from keras_structsparse.graph.channels import shared_layers
from keras_structsparse.graph.channels.borders import without_borders
from keras_structsparse.graph.channels.constant_maps import understood
from keras_structsparse.graph.channels.layer_names import LayerNames
from keras_structsparse.graph.channels.registry import not_understood, rule_for
from keras_structsparse.graph.channels.rule import (
    Channels,
    Flow,
    Rule,
    Site,
    channels_last,
    unknown,
)
from keras_structsparse.graph.channels.splitting import Realization
from keras_structsparse.graph.data_format import channel_axis
from keras_structsparse.graph.functional_graph import Call, Graph, is_opened
from keras_structsparse.graph.masks import follow
from keras_structsparse.graph.open_sizes import same_shape


@dataclass(frozen=True)
class Step:
    """A call of the graph and what it does to channels.

    Attributes:
        call: The call.
        site: The call as its rule sees it.
        rule: Its rule; None if the call is copied unchanged.
        flow: What the call does to channels.
        outputs: The channels of each of its outputs.
        shared: Whether its layer has weights and is called more than once.
    """

    call: Call
    site: Site
    rule: Rule | None
    flow: Flow
    outputs: tuple[Channels, ...]
    shared: bool


@dataclass(frozen=True)
class Walk:
    """All calls of a network and the channels of all its tensors.

    Attributes:
        steps: The calls in topological order.
        channels: The channels of each tensor, by its index in the graph.
        count: The number of channel numbers.
    """

    steps: tuple[Step, ...]
    channels: Mapping[int, Channels]
    count: int


class _Numbers:
    """Gives new channel numbers."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, amount: int) -> Array:
        self.count += amount
        return np.arange(self.count - amount, self.count)


def walk(
    network: Graph,
    changes: Mapping[int, Mapping[str, Array]],
    constants: str,
    realize: Realization,
    kept: Mapping[int, str] = MappingProxyType({}),
    *,
    dead: bool = False,
) -> Walk:
    """Find the live and the constant channels of every tensor.

    Args:
        network: The graph of the model.
        changes: Weights that replace the model's, by ``id`` of the layer and name.
        constants: "exact", "interior" or "drop", as for :func:`keras_structsparse.prune`.
        realize: How kernels of several sizes become convolutions, with the cost model.
        kept: Why some calls, by their ``id``, are copied unchanged whatever their rules say.
        dead: Whether the outputs may be independent of the inputs.

    Returns:
        The calls and the channels of all tensors.

    Raises:
        DeadNetworkError: No output depends on an input, and ``dead`` is false.
    """
    known: shared_layers.Known = {}
    masks = follow(network)
    reasons = {id(c): "it reads a mask" for c in network.calls if masks.reads(c)} | dict(kept)
    while True:
        # Constants that were found for shared layers may reveal more: repeat to the fixpoint.
        found = _walk(network, changes, constants, realize, known, reasons, dead)
        learned = _known(found)
        if shared_layers.constants(learned) == shared_layers.constants(known):
            return found
        known = learned


def _known(walked: Walk) -> shared_layers.Known:
    """What holds for the inputs of each shared layer at all its calls."""
    inputs: dict[int, list[tuple[Channels, ...]]] = {}
    for step in walked.steps:
        if step.shared:
            sides = tuple(walked.channels[i] for i in step.call.inputs)
            inputs.setdefault(id(step.call.operation), []).append(sides)
    return {key: shared_layers.common_channels(calls) for key, calls in inputs.items()}


def _walk(
    network: Graph,
    changes: Mapping[int, Mapping[str, Array]],
    constants: str,
    realize: Realization,
    known: shared_layers.Known,
    kept: Mapping[int, str],
    dead: bool,
) -> Walk:
    numbers = _Numbers()
    channels = {i: _fresh(network, i, numbers) for i in network.inputs}
    names = LayerNames(network.calls, [tensor.name for tensor in network.model.inputs])
    make = partial(Site, constants=constants, realize=realize, fresh=numbers)
    steps: list[Step] = []
    firsts: dict[int, Step] = {}
    depends = dict.fromkeys(network.inputs, True)  # known for layers without a rule too
    for call in network.calls:
        key, changed = id(call.operation), changes.get(id(call.operation), {})
        site = _site(network, call, changed, channels, make, names)
        step = _step(network, call, site, known.get(key), firsts.get(key), kept)
        firsts.setdefault(key, step)
        channels.update(zip(call.outputs, step.outputs, strict=True))
        steps.append(step)
        read = any(depends[i] for i in call.inputs)
        for i, output in zip(call.outputs, step.outputs, strict=True):
            depends[i] = read and bool(output.live.any())
    if not dead and not any(depends[i] for i in network.outputs):
        raise DeadNetworkError(_dead_message(network, depends))
    return Walk(tuple(steps), channels, numbers.count)


def _step(
    network: Graph,
    call: Call,
    site: Site,
    known: Sequence[Channels] | None,
    first: Step | None,
    kept: Mapping[int, str],
) -> Step:
    """The step of a call.

    Args:
        network: The graph.
        call: The call.
        site: The call site.
        known: What holds for the inputs at all calls of its layer, if it is shared and known.
        first: The first call of its layer, if this is not it.
        kept: Why some calls are copied unchanged, by ``id``.
    """
    rule = rule_for(call.operation)
    shared = network.is_shared(call) and bool(site.weights)
    calls = network.calls_of[id(call.operation)] if shared else (call,)
    if shared:
        site = shared_layers.common_site(site, network, calls, known)
    reason = _reason(rule, site, calls) or next((kept[id(c)] for c in calls if id(c) in kept), None)
    if rule is None or reason is not None:
        outputs = tuple(_fresh(network, i, site.fresh) for i in call.outputs)
        keeps = tuple(channels.ids for channels in (*site.inputs, *outputs))
        unchanged = Flow(outputs[0], keeps=keeps, notes=(f"kept as it is: {reason}",))
        return Step(call, site, None, unchanged, outputs, shared)
    site, notes = understood(site, rule)
    site, hidden = (site, ()) if rule.borders else without_borders(site)
    flow = rule.flow(site)
    own = flow.output.passed(axis=site.axis if len(site.output_shape) > 2 else -1)
    flow = replace(flow, output=own, keeps=flow.keeps + hidden, notes=flow.notes + notes)
    if shared and first is not None:
        flow = shared_layers.joined(flow, site, first.flow, first.site)
    return Step(call, site, rule, flow, flow.outputs, shared)


def _reason(rule: Rule | None, site: Site, calls: Sequence[Call]) -> str | None:
    """Why a call, one of all ``calls`` of its layer, is copied unchanged; None if it is not."""
    if any(call.options.get("mask") is not None for call in calls):
        return "it is called with a mask"
    if any(call.is_training for call in calls):
        return "it is called with training=True"
    if rule is None:
        nested = is_opened(site.operation)
        return "it cannot be opened as it is called" if nested else "no rule for its type"
    if len(calls[0].outputs) != 1 and not rule.splits:
        return "it has several outputs"
    axes = {channels.axis for channels in site.inputs}
    if len(axes) > 1 or (site.axis != -1 and not rule.channels_first):
        return "the channels of its inputs are not on the last axis"
    return not_understood(site) or rule.refuses(site)


def _site(
    network: Graph,
    call: Call,
    changes: Mapping[str, Array],
    channels: Mapping[int, Channels],
    make: Callable[..., Site],
    names: LayerNames,
) -> Site:
    """The call site of a call; ``make`` is the constructor with what all sites share."""
    layer_name, inputs = names.of_call[id(call)], tuple(channels[i] for i in call.inputs)
    axes = [side.axis for side in inputs]
    shapes = [channels_last(network.shapes[i], a) for i, a in zip(call.inputs, axes, strict=True)]
    return make(
        name=call.name,
        layer_name=layer_name,
        derive=partial(names.derive, layer_name),
        operation=call.operation,
        weights=named_weights(call.operation, changes),
        inputs=inputs,
        shapes=tuple(shapes),
        output_shape=channels_last(network.shapes[call.outputs[0]], axes[0] if axes else -1),
        dtype=network.dtypes[call.outputs[0]],
        fill=call.arguments,
        same_shape=partial(same_shape, network, call.inputs),
    )


def named_weights(operation: keras.Operation, changes: Mapping[str, Array]) -> dict[str, Array]:
    """The weights of a layer by name, in the order of the layer.

    Args:
        operation: A layer or a bare operation.
        changes: Weights by name that replace its own.
    """
    weights = getattr(operation, "weights", ())
    return {
        weight.name: changes[weight.name]
        if weight.name in changes
        else keras.ops.convert_to_numpy(weight)
        for weight in weights
    }


def _fresh(network: Graph, tensor: int, fresh: Callable[[int], Array]) -> Channels:
    """New channels, all live, for an input or for the output of a layer without a rule."""
    shape, axis = network.shapes[tensor], _axis(network, tensor)
    return unknown(fresh((shape[axis] if shape else None) or 1), axis)


def _axis(network: Graph, tensor: int) -> int:
    """The channel axis of a tensor: that of the first layer behind it with a data format."""
    rank, tensors = len(network.shapes[tensor]), [tensor]
    for index in tensors:  # grows
        for call in network.readers.get(index, ()):
            if getattr(call.operation, "data_format", None) is not None:
                return channel_axis(call.operation) if rank > 2 else -1
            tensors += [i for i in call.outputs if len(network.shapes[i]) == rank]
    return -1


def _dead_message(network: Graph, depends: Mapping[int, bool]) -> str:
    """The error message; it names the first layer with a live input and a constant output."""
    behind = set(network.outputs)
    cuts = []
    for call in reversed(network.calls):
        used = behind.intersection(call.outputs)
        if used and not any(depends[i] for i in used):
            behind.update(call.inputs)
            if any(depends[i] for i in call.inputs):
                cuts.append(call.name)
    return (
        f"Model '{network.model.name}': no output depends on the input. "
        f"The first layer whose outputs are all constant is '{cuts[-1]}'. "
        "Use a smaller alpha or tau, or a plan that keeps one of its kernels."
    )
