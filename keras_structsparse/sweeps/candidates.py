"""The networks that thresholds make of a trained one, judged on the validation split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from keras_structsparse._typing import Array
from keras_structsparse.data.datasets import Dataset
from keras_structsparse.errors import DeadNetworkError
from keras_structsparse.graph.batch_norm_statistics import reestimate_batch_norm
from keras_structsparse.profiling.pareto import pareto
from keras_structsparse.profiling.profile import profile
from keras_structsparse.surgery import prune
from keras_structsparse.surgery.plans import Plan, plan
from keras_structsparse.sweeps.settings import Settings
from keras_structsparse.sweeps.threshold_selection import masked_accuracy
from keras_structsparse.training.fit import accuracy


@dataclass(frozen=True)
class Candidate:
    """A threshold and the network that it gives, before fine-tuning.

    Attributes:
        tau: The threshold.
        plan: The kernels that it keeps of the trained network.
        model: The network.
        multiply_adds: Its multiply-adds for one image.
        validation: Its accuracy on the validation split.
    """

    tau: float
    plan: Plan
    model: keras.Model
    multiply_adds: int
    validation: float


def find_candidates(model: keras.Model, data: Dataset, settings: Settings) -> list[Candidate]:
    """The thresholds that no other one beats on the validation split, the cheapest first.

    Args:
        model: A trained network.
        data: The data set.
        settings: The settings of the sweep.

    Returns:
        The candidates; none if even the smallest threshold gives a dead network.
    """
    tried: dict[Any, Candidate] = {}
    for tau in sorted(settings.taus):
        chosen = plan(model, tau)
        key = tuple(tuple(sizes) for sizes in chosen.sizes.values())
        if key in tried:
            continue
        try:
            pruned = prune(model, chosen, realize=settings.realize)
        except DeadNetworkError:
            break  # Larger thresholds remove no less.
        value = _judge(model, chosen, pruned, data, settings.reestimate)
        tried[key] = Candidate(tau, chosen, pruned, profile(pruned).multiply_adds, value)
    return _useful(list(tried.values()), settings.max_drop)


def _useful(found: list[Candidate], max_drop: float) -> list[Candidate]:
    least = found[0].validation - max_drop if found else 0.0
    found = [candidate for candidate in found if candidate.validation >= least]
    # Of thresholds that come to the same, the smallest.
    values = {(c.multiply_adds, c.validation): c for c in reversed(found)}
    return [list(values.values())[i] for i in pareto(list(values))]


def _judge(
    model: keras.Model, chosen: Plan, pruned: keras.Model, data: Dataset, reestimate: int | None
) -> float:
    """Accuracy on the validation split right after surgery."""
    validation = data.validation.arrays
    if reestimate is None:
        return masked_accuracy(model, chosen, validation)
    reestimate_batch_norm(pruned, _some(data.train.x, reestimate))
    return accuracy(pruned, validation)


def _some(images: Array, count: int) -> Array:
    """So many images, or all if there are fewer, from all over the split."""
    step = max(len(images) // count, 1)
    return images[::step][:count]
