"""Which channels depend on the input of a network, and which surgery keeps, by kernel sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels.channel_steps import ChannelStep
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.remnants import Remnants


def live_channels(
    found: PrunableLayers,
    steps: Sequence[ChannelStep],
    kernels: Sequence[Array | None],
    remnants: Remnants,
) -> Array:
    """For each channel number, whether the channel must be computed.

    That is so if it depends on the input, or is a spatial pattern of constants. If no output
    depends on the input, the network is dead, and no channel is live.

    Args:
        found: The prunable layers of the model.
        steps: The calls, in topological order.
        kernels: For each call the sizes of its kernels (kernels,), or None.
        remnants: What becomes of the constants that removed channels leave.
    """
    live = _computed(found, steps, kernels, remnants)
    if remnants.held:
        depends = _computed(found, steps, kernels, replace(remnants, held={}))
        if not any(depends[found.channels.channels[y]].any() for y in found.graph.outputs):
            live[:] = False
    return live


def _computed(
    found: PrunableLayers,
    steps: Sequence[ChannelStep],
    kernels: Sequence[Array | None],
    remnants: Remnants,
) -> Array:
    live = np.ones(len(found.channels.kept), bool)
    for step, sizes in zip(steps, kernels, strict=True):
        if step.mixes:
            whole = np.ones((), bool) if sizes is None else sizes > 0
            reads = _of_groups(step, live, step.inputs)
            for ids in step.outputs:
                live[ids] = np.repeat(reads, len(ids) // len(reads)) | remnants.holds(step, sizes)
                live[ids] &= whole
        elif step.merged:
            passed = [step.outputs[0]] if step.passes else []
            merged = np.any([live[i] for i in (*passed, *step.merged)], axis=0)
            for ids, ended in remnants.ends(step):
                merged &= live[ids] | ~ended
            live[step.outputs[0]] = merged
    return live


def kept_channels(found: PrunableLayers, steps: Sequence[ChannelStep], live: Array) -> Array:
    """The channels that surgery keeps: always, or because a kept channel depends on them.

    Args:
        found: The prunable layers of the model.
        steps: The calls, in topological order.
        live: For each channel number, whether the channel depends on the input.

    Returns:
        Truth values by channel number.
    """
    kept = found.channels.kept.copy()
    for tensor in found.graph.outputs:
        ids = found.channels.channels[tensor]
        kept[ids] |= live[ids]
    before = -1
    while before < (before := int(kept.sum())):  # joined channels keep each other
        for step in reversed(steps):
            _keep_inputs(step, live, kept)
    return kept


def _keep_inputs(step: ChannelStep, live: Array, kept: Array) -> None:
    """Keep what a call needs for its kept output channels; joined channels in both directions."""
    for ids in step.joined:
        # Surgery removes a summand whose channels are all constant.
        if live[ids].any():
            together = kept[step.outputs[0]] | kept[ids]
            kept[step.outputs[0]] = together
            kept[ids] |= together
    if step.singles:  # The outputs of one input are kept together.
        own = _of_groups(step, kept, step.outputs)
        kept[step.outputs[0]] |= np.repeat(own, len(step.outputs[0]) // step.groups)
    if step.mixes:
        used = _of_groups(step, kept & live, step.outputs)
        for ids, alone in zip(step.inputs, step.alone, strict=True):
            # A live output of one constant input shows the constant.
            needed = live[ids] | step.singles
            kept[ids] |= needed & np.repeat(used, len(ids) // step.groups) & alone


def _of_groups(step: ChannelStep, values: Array, tensors: Sequence[Array]) -> Array:
    """For each group of a call, whether any of its channels has a property (groups,).

    Args:
        step: The call.
        values: The property, by number of the channel.
        tensors: The numbers of the channels of some tensors of the call.
    """
    found = [values[ids].reshape(step.groups, -1).any(axis=1) for ids in tensors]
    return np.any(found or [np.zeros(step.groups, bool)], axis=0)
