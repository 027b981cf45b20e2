"""Constant maps: channels that do not depend on the input, but differ between positions.

A dense layer before a reshape into maps leaves one for each channel that is removed. Rules that do
not understand them see a live channel.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels.rule import Channels, Rule, Site


def always(site: Site) -> bool:
    """For :attr:`Rule.maps` of rules that understand constant maps at every call."""
    return True


def understood(site: Site, rule: Rule) -> tuple[Site, tuple[str, ...]]:
    """The site as a rule understands it.

    Args:
        site: The call site.
        rule: Its rule.

    Returns:
        The site, with plain live channels in place of the constant maps if the rule does not
        understand them, and then a note that says so.
    """
    lost = sum(len(side.maps) for side in site.inputs)
    if not lost or rule.maps(site):
        return site, ()
    note = f"it needs {lost} constant channels: their constants differ between positions"
    return without_maps(site), (note,)


def without_maps(site: Site) -> Site:
    """The site with plain live channels in place of constant maps."""
    return replace(site, inputs=tuple(side.passed(maps={}) for side in site.inputs))


def computed(channels: Channels) -> Array:
    """Whether each channel depends on the input, as far as is known (channels,)."""
    return channels.live & ~np.isin(np.arange(len(channels)), list(channels.maps))
