"""Borders: zeros around constant channels, which most rules do not understand."""

from __future__ import annotations

from dataclasses import replace

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels.rule import Site


def without_borders(site: Site) -> tuple[Site, tuple[Array, ...]]:
    """Count constants behind zero padding as live.

    Args:
        site: The call site.

    Returns:
        The site, and the channel numbers that must be kept for it.
    """
    inputs, keeps = [], []
    for channels in site.inputs:
        if channels.border:
            keeps.append(channels.ids[channels.offset])
            channels = channels.passed(live=channels.live | channels.offset, border="")
        inputs.append(channels)
    return replace(site, inputs=tuple(inputs)), tuple(keeps)
