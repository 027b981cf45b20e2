"""What a sweep is asked to do, as plain values that can be written down and compared.

Importing this module does not import Keras: options of the command line are read off `Settings`
and `Search`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from keras_structsparse import _validation as checked
from keras_structsparse._records import shortened
from keras_structsparse.graph.channels.splitting import REALIZE, check_realize
from keras_structsparse.training.penalty_config import PenaltyConfig
from keras_structsparse.training.recipes import Recipe

FORMAT = "keras_structsparse.sweep/1"

TAUS = (0.0, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.2, 0.3)
"""Thresholds on group norms; those that leave the same network are tried once."""

STRATEGIES = ("none", "mirrored")
"""Ways to train on several devices."""


@dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
        alpha: Weight of the penalty; 0 is the dense network.
        seed: Seed of its weights and of the order of the examples.
        reweight: In place of the form's, if not None.
        learning_rate: In place of the recipe's, if not None.

    Raises:
        ValueError: A value is out of its range.
    """

    alpha: float
    seed: int
    reweight: float | None = None
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        checked.set_checked(
            self,
            alpha=checked.nonnegative("alpha", self.alpha),
            seed=checked.seed("seed", self.seed),
        )
        for name in ("reweight", "learning_rate"):
            if (value := getattr(self, name)) is not None:
                checked.set_checked(self, **{name: checked.positive_number(name, value)})

    @property
    def name(self) -> str:
        """A name that files may have.

        Examples:
            >>> Trial(1e-3, 2).name
            'alpha-0.001-seed-2'
            >>> Trial(1e-3, 2, learning_rate=0.05).name
            'alpha-0.001-seed-2-learning_rate-0.05'
        """
        return "-".join(
            f"{key}-{value!r}" for key, value in vars(self).items() if value is not None
        )


Range = tuple[float, float]
"""The least and the largest value."""


@dataclass(frozen=True)
class Search:
    """A Bayesian search, in place of one training for each of a list of alphas.

    It looks for the best accuracy on the validation split, after fine-tuning, of a network with at
    most ``budget`` of the multiply-adds.

    Attributes:
        trials: Number of trainings with a penalty.
        budget: Share of the dense network's multiply-adds that the search may use, above 0, at
            most 1.
        reweight: Range of the penalty's reweighting for the search to choose from; unless given,
            it is fixed.
        learning_rate: Range of the learning rate at the start for the search to choose from;
            unless given, it is fixed.

    Raises:
        ValueError: A value is out of its range.
    """

    trials: int = field(metadata={"option": None})
    budget: float = 0.5
    reweight: Range | None = field(default=None, metadata={"option": "--reweights"})
    learning_rate: Range | None = field(default=None, metadata={"option": "--learning-rates"})

    def __post_init__(self) -> None:
        checked.set_checked(
            self,
            trials=checked.positive_int("trials", self.trials),
            budget=checked.fraction("budget", self.budget),
        )
        for name in ("reweight", "learning_rate"):
            if (found := getattr(self, name)) is not None:
                checked.set_checked(self, **{name: checked.interval(name, found)})


@dataclass(frozen=True)
class Settings:
    """All that the points of a sweep depend on.

    Attributes:
        model: Name of the base network.
        dataset: Name of the data set.
        alphas: Weights of the penalty, all > 0 and different.
        taus: Thresholds on group norms to try on every trained network, all >= 0.
        seeds: Seeds; every alpha is trained once with each, and so is the dense network.
        form: Everything about the penalty but its weight.
        recipe: How to train.
        tuning: How to fine-tune after surgery; None for not at all.
        max_drop: Thresholds that cost more than this share of accuracy on the validation split,
            right after surgery and against the same network without threshold, are left out.
        path: How to train for every alpha but the first, starting from the network before, pruned
            to its size; the alphas then increase. None: every alpha starts from new weights.
        shrink_every: Epochs after which zeros are removed in training, again and again; None for
            never. A sweep always removes them, whether that saves time or not: measured times would
            make runs differ.
        reestimate: Training images from which the statistics of batch normalisations are estimated
            after surgery, before the validation split judges a threshold; see
            :func:`reestimate_batch_norm`. None: they are kept. The dense network keeps its own.
        realize: Layers of several kernel sizes: as one convolution or several, as for
            :func:`prune`.
        search: How to search for alphas between the least and the largest of the list, with the
            first seed; None: those of the list are tried. Not together with a path.

    Raises:
        ValueError: A value is out of its range.

    Examples:
        >>> [trial.name for trial in Settings("net", "digits", (1e-3, 2e-3)).trials]
        ['alpha-0.0-seed-0', 'alpha-0.001-seed-0', 'alpha-0.002-seed-0']
    """

    model: str = field(metadata={"option": None})
    dataset: str = field(metadata={"option": None})
    alphas: tuple[float, ...]
    taus: tuple[float, ...] = TAUS
    seeds: tuple[int, ...] = (0,)
    form: PenaltyConfig = field(default_factory=PenaltyConfig)
    recipe: Recipe = field(default_factory=Recipe)
    tuning: Recipe | None = None
    max_drop: float = field(default=0.1, metadata={"option": None})
    path: Recipe | None = None
    shrink_every: int | None = field(
        default=None,
        metadata={
            "help": "Epochs from one removal of zero kernels to the next in training; train "
            "removes them only where that saves time. 0: never."
        },
    )
    reestimate: int | None = field(
        default=None,
        metadata={
            "option": "--reestimate-bn",
            "help": "Training images to estimate the statistics of batch normalisations from after "
            "surgery; 0: they are kept.",
        },
    )
    realize: str = field(default="auto", metadata={"choices": tuple(REALIZE)})
    search: Search | None = None

    def __post_init__(self) -> None:
        self._set_numbers()
        if min(self.alphas) <= 0:
            raise ValueError(f"alphas: expected numbers > 0. Received: {self.alphas!r}")
        if self.form.kind == "none":
            raise ValueError(f"form: expected one with a penalty. Received: {self.form!r}")
        if self.path is not None and list(self.alphas) != sorted(self.alphas):
            raise ValueError(
                f"alphas: expected increasing ones for a path. Received: {self.alphas!r}"
            )
        if self.search is not None:
            self._check_search()

    def _set_numbers(self) -> None:
        """Check all numbers and names, and store them as Python's."""
        checks = {"alphas": checked.nonnegative, "taus": checked.nonnegative, "seeds": checked.seed}
        for name, check in checks.items():
            given = getattr(self, name)
            values = checked.several(name, given, check)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name}: expected different numbers. Received: {given!r}")
            checked.set_checked(self, **{name: values})
        for name in ("shrink_every", "reestimate"):
            if (value := getattr(self, name)) is not None:
                checked.set_checked(self, **{name: checked.positive_int(name, value)})
        checked.set_checked(
            self,
            max_drop=checked.nonnegative("max_drop", self.max_drop),
            realize=check_realize(self.realize),
        )

    def _check_search(self) -> None:
        if len(self.alphas) < 2:
            raise ValueError(
                f"alphas: expected at least two to search between. Received: {self.alphas!r}"
            )
        if len(self.seeds) > 1:
            raise ValueError(f"seeds: expected one for a search. Received: {self.seeds!r}")
        if self.path is not None:
            raise ValueError("path: expected none for a search. Received: a recipe")

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trainings that are known beforehand, seed by seed, the dense network first."""
        alphas = self.alphas if self.search is None else ()
        return tuple(Trial(alpha, seed) for seed in self.seeds for alpha in (0.0, *alphas))

    @property
    def chains(self) -> tuple[tuple[Trial, ...], ...]:
        """All trainings, those together of which each needs the one before."""
        if self.path is None:
            return tuple((trial,) for trial in self.trials)
        dense = [(Trial(0.0, seed),) for seed in self.seeds]
        paths = [tuple(Trial(alpha, seed) for alpha in self.alphas) for seed in self.seeds]
        return tuple(chain for pair in zip(dense, paths, strict=True) for chain in pair)

    def form_of(self, trial: Trial) -> PenaltyConfig:
        """The penalty of a trial but for its weight."""
        return self.form if trial.reweight is None else replace(self.form, reweight=trial.reweight)

    def recipe_of(self, trial: Trial, first: bool = True) -> Recipe:
        """How a trial trains.

        Args:
            trial: The trial.
            first: Whether it starts from the beginning, not from the one before on its path.
        """
        recipe = self.recipe if first or self.path is None else self.path
        rate = trial.learning_rate
        return recipe if rate is None else replace(recipe, learning_rate=rate)

    def record(self) -> dict[str, Any]:
        """The settings as JSON holds them."""
        return {"format": FORMAT, **_plain(asdict(self))}


def differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """How two records differ, entry by entry.

    Args:
        old: The record of a run.
        new: The record of the settings asked for.
        path: Prefix of the names of entries.

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
            found.append(f"{name}: the run has {shortened(before)}, received {shortened(after)}")
    return found


def _plain(value: Any) -> Any:
    """Lists in place of tuples, as JSON reads them back."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, tuple | list) else value
