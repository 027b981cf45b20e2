"""The exceptions of this package; each is also a built-in exception that users would expect."""

from __future__ import annotations


class StructSparseError(Exception):
    """Base of every error that this package raises on purpose."""


class ModelError(StructSparseError, ValueError):
    """A model that cannot be used: it has no graph or no convolutions, or a file holds no model."""


class PlanError(StructSparseError, ValueError):
    """A plan that does not fit the model, or a file that holds no plan."""


class CostsError(StructSparseError, ValueError):
    """Costs of operations that are negative or not finite, or a file that holds no costs."""


class MarksError(StructSparseError, ValueError):
    """Reference networks that lack a number, or a file that holds no reference networks."""


class DeadNetworkError(StructSparseError, ValueError):
    """A network whose output no longer depends on its input."""


class DivergedError(StructSparseError, ArithmeticError):
    """A training whose loss is no longer a finite number."""


class DatasetError(StructSparseError, ValueError):
    """A data set that is unknown, unsuitable, or whose files are missing."""


class OutputError(StructSparseError, OSError):
    """An output path that cannot be written, or that holds something else."""


class UnsupportedKerasError(StructSparseError, RuntimeError):
    """A version of Keras that lacks a private part which this package needs."""
