"""Classes of kernels that save equally much when they are removed, beside their own work.

With a kernel goes what reads its channel, and what only its channel reads. In most layers that is
the same for all kernels. But before and behind depthwise convolutions it depends on the size of the
depthwise kernel of the channel, and on the constant that the channel leaves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels.channel_steps import ChannelStep
from keras_structsparse.profiling.remnants import Remnants

FACTORS = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9], np.uint64)
"""Odd numbers that spread the bits of what is hashed."""


def kernel_classes(
    steps: Sequence[ChannelStep],
    kernels: Sequence[Array | None],
    live: Array,
    remnants: Remnants,
) -> Array:
    """A number for each channel; kernels of a layer whose channels have equal ones are one class.

    Args:
        steps: The calls, in topological order.
        kernels: For each call the sizes of its kernels (kernels,), or None.
        live: For each channel number, whether the channel depends on the input.
        remnants: What becomes of the constants that removed channels leave.

    Returns:
        Numbers (channels,).
    """
    before = np.zeros(len(live), np.uint64)
    written = np.zeros(len(live), np.uint64)
    behind = np.zeros(len(live), np.uint64)
    for index, (step, sizes) in enumerate(zip(steps, kernels, strict=True)):
        if step.singles:
            others = _others(step, sizes)
            before[step.outputs[0]] = _hash(
                index, live[step.sources], written[step.sources], others
            )
        if step.mixes and sizes is not None:
            written[step.outputs[0]] = _hash(index, sizes)
    for index, (step, sizes) in reversed(list(enumerate(zip(steps, kernels, strict=True)))):
        if step.singles:
            held = remnants.holds(step, sizes)
            own = 0 if sizes is None else sizes
            found = _hash(index, own, live[step.outputs[0]], held, behind[step.outputs[0]])
            np.add.at(behind, step.sources, found)
        elif not step.mixes and step.merged:
            for ids, seen in _sides(step, live, remnants):
                np.add.at(behind, ids, _hash(index, seen, behind[step.outputs[0]]))
    return _hash(0, before, behind)


def _others(step: ChannelStep, sizes: Array | None) -> Array:
    """How many other depthwise kernels of the same input channel are not removed (channels,)."""
    alive = np.ones(len(step.outputs[0]), int) if sizes is None else (sizes > 0).astype(int)
    copies = len(alive) // step.groups
    return np.repeat(alive.reshape(-1, copies).sum(axis=1), copies) - alive


def _sides(step: ChannelStep, live: Array, remnants: Remnants) -> list[tuple[Array, Array]]:
    """For each input of a merging call its numbers, and what decides what ends with it."""
    ends = {id(ids): ended for ids, ended in remnants.ends(step)}
    found = []
    for ids in step.inputs:
        others = [live[other] for other in step.inputs if other is not ids]
        seen = np.zeros(len(ids), np.uint64)
        for flags in (ends.get(id(ids), np.zeros(len(ids), bool)), *others):
            if len(flags) == len(ids):
                seen = _hash(1, seen, flags)
        if len(ids) == len(step.outputs[0]):
            found.append((ids, seen))
    return found


def _hash(seed: int, *parts: Array | int) -> Array:
    """Hashes of arrays, entry by entry."""
    mixed = np.uint64(seed + 1) * FACTORS[:1]
    with np.errstate(over="ignore"):
        for part in parts:
            mixed = (mixed ^ (mixed >> np.uint64(29))) * FACTORS[1] + np.asarray(part, np.uint64)
            mixed = (mixed ^ (mixed >> np.uint64(32))) * FACTORS[0]
    return mixed
