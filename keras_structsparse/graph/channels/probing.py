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
    rule = step.rule
    if rule is None:
        return np.ones(len(step.flow.output), bool)
    weights = named_weights(step.call.operation, changes)
    site, _ = understood(replace(step.site, inputs=tuple(inputs), weights=weights), rule)
    return rule.flow(site if rule.borders else without_borders(site)[0]).output.live


def all_live(channels: Channels) -> Channels:
    """The channels, all of them live."""
    return channels.passed(live=np.ones(len(channels), bool), maps={}, border="")
