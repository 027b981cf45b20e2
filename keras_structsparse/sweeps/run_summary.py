"""What a run holds, sorted out for its report."""

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
    """What a run holds, sorted out.

    Attributes:
        dense: The dense networks, one per seed.
        sparse: All others.
        front: Those of them on the efficient frontier of the validation split, cheapest first.
        base: (width, size) of every layer of the base architecture.
        correlations: For every trial whose record says so, how alike the kernels of each layer were
            after every epoch.
    """

    dense: Sequence[Found]
    sparse: Sequence[Found]
    front: Sequence[Found]
    base: Mapping[str, Shape]
    correlations: Mapping[Trial, Correlations]

    @property
    def middle(self) -> Found:
        """The network in the middle of the frontier, to show where one stands for all."""
        return self.front[len(self.front) // 2]


def read_contents(run: Run) -> Contents:
    """Sort out what a run holds.

    Args:
        run: The run.

    Returns:
        Its contents.

    Raises:
        OutputError: No sparse network, or no dense one, is there yet.
    """
    dense, sparse = run.dense_and_sparse()
    values = [(float(f.point.multiply_adds), f.point.validation_finetuned) for f in sparse]
    front = [sparse[i] for i in pareto(values)]
    base = widths_and_sizes(load_model(dense[0].model))
    return Contents(dense, sparse, front, base, run.correlations())
