"""Surgery: rebuild a network without what a plan removes, with exactly the same outputs."""

import keras_structsparse.surgery.rules  # noqa: F401  (registers the rules)
from keras_structsparse.graph.channels.costs import Costs
from keras_structsparse.graph.channels.registry import RULES, register
from keras_structsparse.graph.channels.rule import (
    Channels,
    Flow,
    Piece,
    Reading,
    Rule,
    Site,
    emit,
    unknown,
)
from keras_structsparse.graph.channels.weight_provenance import Origin, Taken, origins
from keras_structsparse.surgery.pruning import prune

__all__ = [
    "RULES",
    "Channels",
    "Costs",
    "Flow",
    "Origin",
    "Piece",
    "Reading",
    "Rule",
    "Site",
    "Taken",
    "emit",
    "origins",
    "prune",
    "register",
    "unknown",
]
