"""Surgery: rebuild a network without what a plan removes, with exactly the same outputs."""

from keras_structsparse.surgery.channels import (
    Channels,
    Flow,
    Piece,
    Reading,
    Rule,
    Site,
    emit,
    unknown,
)
from keras_structsparse.surgery.costs import Costs
from keras_structsparse.surgery.lineage import Origin, Taken, origins
from keras_structsparse.surgery.pruning import prune
from keras_structsparse.surgery.registry import RULES, register

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
