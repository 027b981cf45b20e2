"""Shared layers: layers with weights that are called more than once.

All calls use the same kernel, so a channel can be removed only at all calls together. An input
channel counts as constant only if it is the same constant at every call: then all calls need the
same correction of the bias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from keras_structsparse._typing import Shape
from keras_structsparse.graph.channels.constant_maps import without_maps
from keras_structsparse.graph.channels.rule import Channels, Flow, Site, channels_last
from keras_structsparse.graph.functional_graph import Call, Graph

Known = Mapping[int, tuple[Channels, ...]]
"""By ``id`` of a shared layer, what holds for the channels of its inputs at all calls."""


def common_site(
    site: Site, network: Graph, calls: Sequence[Call], known: Sequence[Channels] | None
) -> Site:
    """Replace what holds for one call site by what holds for all calls of its layer.

    Args:
        site: The call site.
        network: The graph.
        calls: All calls of the layer.
        known: The channels of the inputs as :func:`common_channels` returned them; None if
            unknown, then all input channels count as live.

    Returns:
        The site, with the channel numbers of its own inputs.
    """
    inputs = tuple(
        own.passed(live=np.ones(len(own), bool))
        if known is None
        else own.passed(live=known[i].live, value=known[i].value, border=known[i].border)
        for i, own in enumerate(without_maps(site).inputs)
    )
    sides = zip(*(call.inputs for call in calls), strict=True)
    shapes = tuple(_common_shape([network.shapes[i] for i in side], site.axis) for side in sides)
    outputs = [network.shapes[call.outputs[0]] for call in calls]
    output_shape = _common_shape(outputs, site.axis)
    return replace(site, inputs=inputs, shapes=shapes, output_shape=output_shape)


def _common_shape(shapes: Sequence[Shape], axis: int) -> Shape:
    """The sizes that all shapes have in common, channels last; None for the others.

    Of tensors of several ranks only the last size can be common to all.
    """
    if len(set(map(len, shapes))) > 1:
        widths = {shape[-1] for shape in shapes}
        shortest = min(map(len, shapes))
        return (None,) * (shortest - 1) + (widths.pop() if len(widths) == 1 else None,)
    sides = zip(*shapes, strict=True)
    return channels_last(tuple(s[0] if len(set(s)) == 1 else None for s in sides), axis)


def common_channels(inputs: Sequence[tuple[Channels, ...]]) -> tuple[Channels, ...]:
    """What holds for the inputs of a layer at all its calls.

    Args:
        inputs: For each call, the channels of each input.

    Returns:
        For each input, its channels; a channel is constant if it is the same constant everywhere.
    """
    return tuple(_common(calls) for calls in zip(*inputs, strict=True))


def _common(calls: Sequence[Channels]) -> Channels:
    values = np.array([np.where(channels.live, 0.0, channels.value) for channels in calls])
    differ = (values != values[0]).any(axis=0)
    live = np.any([channels.live for channels in calls], axis=0) | differ
    border = next((channels.border for channels in calls if channels.border), "")
    return calls[0].passed(live=live, value=np.where(live, 0.0, values[0]), border=border)


def joined(flow: Flow, site: Site, other: Flow, other_site: Site) -> Flow:
    """Join the channels of a call to those of another call of the same layer.

    Args:
        flow: The flow of the call.
        site: The call site.
        other: The flow of the other call.
        other_site: Its call site.

    Returns:
        The flow; its channels are kept or removed together with those of the other call.
    """
    pairs = [(a.ids, b.ids) for a, b in zip(other_site.inputs, site.inputs, strict=True)]
    return replace(flow, joins=(*flow.joins, *pairs, (other.output.ids, flow.output.ids)))


def constants(known: Known) -> int:
    """The number of channels that are known to be constant."""
    return sum(int((~channels.live).sum()) for sides in known.values() for channels in sides)
