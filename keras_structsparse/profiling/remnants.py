"""What is left of a channel when the kernels that write it are removed: a constant.

Mostly it fits into the biases of the layers that read it. But a padded depthwise convolution makes
a spatial pattern of it, which must be computed, and behind a product with a gate the channel is
constant only if the constant is 0. One walk with all kernels removed finds the constants, and the
rules of the calls say what becomes of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels.channel_steps import ChannelStep
from keras_structsparse.graph.channels.probing import all_live, live_outputs
from keras_structsparse.graph.channels.propagation import Step, walk
from keras_structsparse.graph.channels.splitting import REALIZE
from keras_structsparse.graph.kernel_axes import (
    axes_of,
    base_size,
    plain_kernel,
    plain_shape,
    stored,
)
from keras_structsparse.graph.nested_groups import masked_kernel
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.surgery import plans


@dataclass(frozen=True)
class Remnants:
    """What becomes of the constants that removed channels leave. It depends on the weights.

    Attributes:
        held: By ``id`` of a call that computes each output channel from one input channel, for each
            size of its kernels which output channels it computes although their inputs are
            constant: (sizes, channels), from size 0.
        ended: By ``id`` of a call that merges tensors, for each input which output channels
            (channels,) are constant if that input is.
    """

    held: Mapping[int, Array] = field(default_factory=dict)
    ended: Mapping[int, tuple[Array, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, found: PrunableLayers) -> Self:
        """Find the constants that removed channels leave, with the present weights.

        Args:
            found: The prunable layers of the model.
        """
        steps = {id(step.call): step for step in found.channels.steps}
        if not any(step.singles or _merges(step) for step in steps.values()):
            return cls()
        nothing = plans.Plan({n: [0] * plain_shape(x)[-1] for n, x in found.layers.items()})
        masks = plans.masks(found, nothing)
        walked = walk(found.graph, masks, "exact", REALIZE["none"], dead=True)
        held, ended = {}, {}
        for step in walked.steps:
            own = steps[id(step.call)]
            if own.singles:
                held[id(step.call)] = _held(step, found)
            elif _merges(own):
                width = len(own.outputs[0])
                sides = [i for i, ids in enumerate(own.inputs) if len(ids) == width]
                if len(sides) == len(own.inputs):
                    ended[id(step.call)] = tuple(_ended(step, i) for i in sides)
        return cls(held, ended)

    def holds(self, step: ChannelStep, sizes: Array | None) -> Array:
        """Which output channels (channels,) a call computes although their inputs are constant.

        Args:
            step: The call.
            sizes: The sizes of its kernels (kernels,); None for whole ones.
        """
        held = self.held.get(id(step.call))
        if held is None:
            return np.zeros(1, bool)
        return held[-1] if sizes is None else held[sizes, np.arange(held.shape[1])]

    def ends(self, step: ChannelStep) -> Iterator[tuple[Array, Array]]:
        """For inputs of a call that merges: their numbers, and :attr:`ended` (channels,)."""
        return zip(step.inputs, self.ended.get(id(step.call), ()), strict=False)


def _merges(step: ChannelStep) -> bool:
    return len(step.inputs) > 1 and bool(step.merged)


def _held(step: Step, found: PrunableLayers) -> Array:
    """The entry of :attr:`Remnants.held` for a call."""
    (inputs,), layer = step.site.inputs, step.call.operation
    width = len(step.flow.output)
    dead = np.repeat(~inputs.live, width // len(inputs))
    if step.call.name not in found.layers:
        return np.asarray(dead & live_outputs(step, [inputs]))[None]
    kernel, name = plain_kernel(layer), axes_of(layer).weight
    rows = [np.zeros(width, bool)]
    for size in range(1, base_size(layer) + 1):
        weights = {name: stored(layer, masked_kernel(kernel, [size] * width))}
        rows.append(dead & live_outputs(step, [inputs], weights))
    return np.stack(rows)


def _ended(step: Step, index: int) -> Array:
    """Which output channels are constant if one input is, and the others are live."""
    sides = [own if i == index else all_live(own) for i, own in enumerate(step.site.inputs)]
    return ~live_outputs(step, sides)
