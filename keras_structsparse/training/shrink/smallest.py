"""Find the smallest network within a drop: shares are halved between too small and enough."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from keras_structsparse.errors import ModelError
from keras_structsparse.training.shrink.drop_bound import DropBound, bound_of
from keras_structsparse.training.shrink.paired import Judged, drops_of
from keras_structsparse.training.shrink.result import ShrinkResult
from keras_structsparse.training.shrink.stages import Job

ATTEMPTS = 5
"""Networks that are trained to find the smallest one within a drop."""

SMALLEST = 0.05
"""The smallest share that is tried."""


class Tried(Protocol):
    """A network that was tried, and how large its drop may be."""

    @property
    def drop_bound(self) -> DropBound | None:
        """The bound."""


T = TypeVar("T", bound=Tried)


def search(attempt: Callable[[float], T], largest: float) -> Mapping[float, T]:
    """Try five networks; the shares are halved on a logarithmic scale.

    A smaller share is tried after a network whose drop is surely within the limit, a larger one
    after another network. So the smallest network within the limit is the last such one, and all
    networks that are larger and were tried are within it too.

    Args:
        attempt: From a share of the multiply-adds to a network.
        largest: The largest drop.

    Returns:
        The networks by share, in the order of the attempts.

    Examples:
        >>> class Network:
        ...     def __init__(self, share: float) -> None:
        ...         self.drop_bound = DropBound(0.002 / share, 0.975, 1000)
        >>> [round(share, 3) for share in search(Network, largest=0.01)]
        [0.224, 0.106, 0.154, 0.185, 0.204]
    """
    low, high, tried = SMALLEST, 1.0, dict[float, T]()
    for _ in range(ATTEMPTS):
        share = math.sqrt(low * high)
        tried[share] = attempt(share)
        if _within(tried[share], largest):
            high = share
        else:
            low = share
    return tried


def bounded(job: Job, result: ShrinkResult) -> DropBound:
    """How large the drop of a network may be, by the validation data.

    Args:
        job: The shrinking, with validation data.
        result: The network.
    """
    judge = result.judge
    assert judge is not None
    before, after = result.before[judge.metric], result.after[judge.metric]
    pair = Judged(job.model, before), Judged(result.model, after)
    drops, unit = drops_of(*pair, judge, job.validation, job.batch_size)
    return bound_of(drops, job.method.confidence, unit)


def chosen(job: Job, tried: Mapping[float, ShrinkResult]) -> ShrinkResult:
    """The smallest network that is surely within the limit.

    If there is none, the one that is most surely within it, with a warning, among those whose drop
    on the validation data is.

    Args:
        job: The shrinking.
        tried: Networks by share.

    Raises:
        ModelError: No network is within the limit on the validation data.
    """
    largest = job.budget.largest
    sure = {share: each for share, each in tried.items() if _within(each, largest)}
    if sure:
        return sure[min(sure)]
    likely = {share: each for share, each in tried.items() if each.drop <= largest}
    if not likely:
        share = max(tried)
        last = tried[share]
        metric = last.judge.metric if last.judge else "the loss"
        raise ModelError(
            f"Model '{job.model.name}': expected a smaller network that loses at most {largest:g} "
            f"of {metric}. Received: with {share:.0%} of the multiply-adds it loses "
            f"{last.drop:.4g}. Allow more, or train longer"
        )
    share = min(likely, key=lambda each: _value(likely[each]))
    return _doubted(likely[share], share, largest)


def _doubted(result: ShrinkResult, share: float, largest: float) -> ShrinkResult:
    """A network with a warning that its drop may be too large."""
    metric = result.judge.metric if result.judge else "the loss"
    said = (
        f"shrink: expected a network that loses at most {largest:g} of {metric}. Received: none of "
        f"{ATTEMPTS} for which the validation data show it. The one with {share:.0%} of the "
        f"multiply-adds loses {result.drop:.4g} there, and {result.drop_bound} on new data. Give "
        "more validation data, train longer, or allow more; or be content with a smaller "
        "ShrinkMethod(confidence=...)"
    )
    return dataclasses.replace(result, warnings=(*result.warnings, said))


def _within(tried: Tried, largest: float) -> bool:
    return _value(tried) <= largest


def _value(tried: Tried) -> float:
    return math.inf if tried.drop_bound is None else tried.drop_bound.value
