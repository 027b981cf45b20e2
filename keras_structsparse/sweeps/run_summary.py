"""The content of a run, sorted for its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keras_structsparse.export.formats import load_model
from keras_structsparse.profiling.pareto import pareto
from keras_structsparse.sweeps.points import widths_and_sizes
from keras_structsparse.sweeps.run_directory import Correlations, Found, Run
from keras_structsparse.sweeps.settings import Trial

Shape = tuple[int, int]


@dataclass(frozen=True)
class Contents:
    """The content of a run, sorted.

    Attributes:
        dense: The dense networks, one per seed.
        sparse: All others.
        front: Those of them on the efficient frontier of the validation split, cheapest first.
        base: (width, size) of every layer of the base architecture.
        correlations: For every trial with a record of it, the mean correlation of the kernels of
            each layer after every epoch.
    """

    dense: Sequence[Found]
    sparse: Sequence[Found]
    front: Sequence[Found]
    base: Mapping[str, Shape]
    correlations: Mapping[Trial, Correlations]

    @property
    def middle(self) -> Found:
        """The network in the middle of the frontier, as an example."""
        return self.front[len(self.front) // 2]


def read_contents(run: Run) -> Contents:
    """Sort the content of a run.

    Args:
        run: The run.

    Returns:
        Its content.

    Raises:
        OutputError: No sparse network, or no dense one, is there yet.
    """
    dense, sparse = run.dense_and_sparse()
    values = [(float(f.point.multiply_adds), f.point.validation_finetuned) for f in sparse]
    front = [sparse[i] for i in pareto(values)]
    base = widths_and_sizes(load_model(dense[0].model))
    return Contents(dense, sparse, front, base, run.correlations())
