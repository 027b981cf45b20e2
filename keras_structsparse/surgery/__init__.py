"""Surgery: rebuild a network without the kernels that a plan removes, with the same outputs."""

import keras_structsparse.surgery.rules  # noqa: F401  (registers the rules)
from keras_structsparse.graph.channels.costs import Costs
from keras_structsparse.graph.channels.registry import RULES, register
from keras_structsparse.graph.channels.rule import (
    Channels,
    Flow,
    LinearRead,
    Piece,
    Rule,
    Site,
    emit,
    only,
    unknown,
)
from keras_structsparse.graph.channels.weight_provenance import Taken
from keras_structsparse.surgery.pruning import prune
from keras_structsparse.surgery.weight_origins import Origin, origins

Reading = LinearRead
"""The former name of :class:`LinearRead`, for rules that use it."""

__all__ = [
    "RULES",
    "Channels",
    "Costs",
    "Flow",
    "LinearRead",
    "Origin",
    "Piece",
    "Reading",
    "Rule",
    "Site",
    "Taken",
    "emit",
    "only",
    "origins",
    "prune",
    "register",
    "unknown",
]
