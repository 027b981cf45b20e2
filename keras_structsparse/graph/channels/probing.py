"""Probing: what a call would make of other channels than those of a walk, by its rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels.borders import without_borders
from keras_structsparse.graph.channels.constant_maps import understood
from keras_structsparse.graph.channels.propagation import Step, named_weights
from keras_structsparse.graph.channels.rule import Channels


def live_outputs(
    step: Step, inputs: Sequence[Channels], changes: Mapping[str, Array] = MappingProxyType({})
) -> Array:
    """Which output channels of a call would depend on the input of the network.

    Args:
        step: The call. Its layer is taken with its own weights, whatever the walk changed.
        inputs: The channels of its inputs, as they would be.
        changes: Weights by name that replace its own.

    Returns:
        Truth values (channels,); all true for a call without a rule.
    """
    return _output(step, inputs, changes).live


def _output(step: Step, inputs: Sequence[Channels], changes: Mapping[str, Array]) -> Channels:
    """The output channels of a call; all live without a rule."""
    rule = step.rule
    if rule is None:
        return all_live(step.flow.output)
    weights = named_weights(step.call.operation, changes)
    site, _ = understood(replace(step.site, inputs=tuple(inputs), weights=weights), rule)
    return rule.flow(site if rule.borders else without_borders(site)[0]).output


def keeps_zeros(step: Step) -> bool:
    """Whether each output channel is the constant 0 if the channel of one input at its place is.

    Args:
        step: The call of a layer that does not mix channels.
    """
    sides = step.site.inputs
    if any(len(own) != len(step.flow.output) for own in sides):
        return False
    for index in range(len(sides)):
        inputs = [_zero(own) if i == index else all_live(own) for i, own in enumerate(sides)]
        output = _output(step, inputs, {})
        if output.live.any() or output.value.any():
            return False
    return bool(sides)


def _zero(channels: Channels) -> Channels:
    nothing = np.zeros(len(channels))
    return channels.passed(live=nothing > 0, value=nothing, maps={}, border="")


def all_live(channels: Channels) -> Channels:
    """The channels, all of them live."""
    return channels.passed(live=np.ones(len(channels), bool), maps={}, border="")
