"""What a sweep is asked to do, as plain values that can be written down and compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from keras_structsparse._checks import nonnegative, positive
from keras_structsparse.forms import Form
from keras_structsparse.training import Recipe, Shrinking

FORMAT = "keras_structsparse.sweep/1"

TAUS = (0.0, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.2, 0.3)
"""Thresholds on group norms; those that leave the same network are tried once."""


@dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
        alpha: Weight of the penalty; 0 is the dense network.
        seed: Seed of its weights and of the order of the examples.
    """

    alpha: float
    seed: int

    @property
    def name(self) -> str:
        """A name that files may have.

        Examples:
            >>> Trial(1e-3, 2).name
            'alpha-0.001-seed-2'
        """
        return f"alpha-{self.alpha!r}-seed-{self.seed}"


@dataclass(frozen=True)
class Settings:
    """All that the points of a sweep depend on.

    Attributes:
        model: What the base network is known as.
        dataset: What the data set is known as.
        alphas: Weights of the penalty, all > 0 and different.
        taus: Thresholds on group norms to try on every trained network, all >= 0.
        seeds: Seeds; every alpha is trained once with each, and so is the dense network.
        form: Everything about the penalty but its weight.
        recipe: How to train.
        tuning: How to fine-tune after surgery; None for not at all.
        path: How to train for every alpha but the first, starting from the solution before, cut to
            its size; the alphas then increase. None: every alpha starts from the beginning.
        shrink_every: Epochs after which a training cuts out what is zero; None for never. It always
            does, whether that saves time or not: measured times would make runs differ.
        max_drop: Thresholds that cost more than this share of accuracy on the validation split,
            right after surgery and against the same network without threshold, are left out.
        reestimate: Training images from which the statistics of batch normalisations are estimated
            anew after surgery, before the validation split judges a threshold; see
            :func:`reestimate_batch_norm`. None: they stay. The dense network keeps its own.

    Raises:
        ValueError: A value is out of its range.

    Examples:
        >>> [trial.name for trial in Settings("net", "digits", (1e-3, 2e-3)).trials]
        ['alpha-0.0-seed-0', 'alpha-0.001-seed-0', 'alpha-0.002-seed-0']
    """

    model: str
    dataset: str
    alphas: tuple[float, ...]
    taus: tuple[float, ...] = TAUS
    seeds: tuple[int, ...] = (0,)
    form: Form = field(default_factory=Form)
    recipe: Recipe = field(default_factory=Recipe)
    tuning: Recipe | None = None
    max_drop: float = 0.1
    path: Recipe | None = None
    shrink_every: int | None = None
    reestimate: int | None = None

    def __post_init__(self) -> None:
        for name, values in (("alphas", self.alphas), ("taus", self.taus), ("seeds", self.seeds)):
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name}: expected different numbers. Received: {values!r}")
            for value in values:
                nonnegative(name, value)
        if min(self.alphas) <= 0:
            raise ValueError(f"alphas: expected numbers > 0. Received: {self.alphas!r}")
        if self.form.regularizer(1.0) is None:
            raise ValueError(f"form: expected one with a penalty. Received: {self.form!r}")
        nonnegative("max_drop", self.max_drop)
        if self.path is not None and list(self.alphas) != sorted(self.alphas):
            raise ValueError(
                f"alphas: expected increasing ones for a path. Received: {self.alphas!r}"
            )
        if self.shrink_every is not None:
            Shrinking(self.shrink_every)
        if self.reestimate is not None:
            positive("reestimate", self.reestimate)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trainings, seed by seed, the dense network first."""
        return tuple(Trial(alpha, seed) for seed in self.seeds for alpha in (0.0, *self.alphas))

    @property
    def chains(self) -> tuple[tuple[Trial, ...], ...]:
        """All trainings, those together of which each needs the one before."""
        if self.path is None:
            return tuple((trial,) for trial in self.trials)
        dense = [(Trial(0.0, seed),) for seed in self.seeds]
        paths = [tuple(Trial(alpha, seed) for alpha in self.alphas) for seed in self.seeds]
        return tuple(chain for pair in zip(dense, paths, strict=True) for chain in pair)

    def record(self) -> dict[str, Any]:
        """The settings as JSON has them."""
        return {"format": FORMAT, **_plain(asdict(self))}


def differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """What two records say differently, entry by entry.

    Args:
        old: The record of a run.
        new: The record of the settings asked for.
        path: Where in the records they lie.

    Returns:
        One phrase for each entry.

    Examples:
        >>> differences({"recipe": {"epochs": 8}}, {"recipe": {"epochs": 4}})
        ['recipe.epochs: the run has 8, received 4']
    """
    found = []
    for key in dict.fromkeys((*old, *new)):
        name = f"{path}{key}"
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{name}.")
        elif before != after:
            found.append(f"{name}: the run has {before!r}, received {after!r}")
    return found


def _plain(value: Any) -> Any:
    """Lists in place of tuples, as JSON reads them back."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, tuple | list) else value
