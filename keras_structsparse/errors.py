"""The exceptions of this package; each is also the built-in error a user would expect."""

from __future__ import annotations


class StructSparseError(Exception):
    """Base of every error that this package raises on purpose."""


class ModelError(StructSparseError, ValueError):
    """A model that cannot be worked on: no graph, no convolutions, a file that is no model."""


class PlanError(StructSparseError, ValueError):
    """A plan that does not fit the model it is used with, or is no plan at all."""


class CostsError(StructSparseError, ValueError):
    """Costs of operations that are no prices, or a file that holds none."""


class MarksError(StructSparseError, ValueError):
    """Networks to compare with that lack a number, or a file that holds none."""


class DeadNetworkError(StructSparseError, ValueError):
    """A network whose output does not depend on its input any more."""


class DatasetError(StructSparseError, ValueError):
    """A data set that is unknown, unsuitable, or whose files are missing."""


class OutputError(StructSparseError, OSError):
    """An output path that cannot be written, or that holds something else."""


class UnsupportedKerasError(StructSparseError, RuntimeError):
    """A version of Keras that lacks a private part which this package needs."""
