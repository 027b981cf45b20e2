"""How to train, as plain values: length, learning rates, weight decay, augmentation.

Importing this module does not import Keras: the options of the command line are read off its
dataclasses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from keras_structsparse._validation import (
    MOST_EPOCHS,
    boolean,
    count,
    finite,
    fraction_below_one,
    positive_int,
    positive_number,
    set_checked,
    several,
)
from keras_structsparse.data.augmentation import Augmentation

if TYPE_CHECKING:
    import keras

NOT_DECAYED = ("bias", "gamma", "beta")
"""Parts of the names of variables that weight decay leaves out."""


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train.

    Attributes:
        epochs: Number of epochs.
        batch_size: Examples per step.
        learning_rate: Learning rate at the start; it falls to 0 along a half cosine.
        momentum: Momentum of SGD, in [0, 1).
        ramp: Fraction of the steps over which alpha rises from 0, in [0, 1); not used where a
            target steers alpha.
        weight_decay: Factor of ``1/2 |w|^2`` over kernels, in [0, 1); biases and normalisations
            are left out.

    Raises:
        ValueError: A value is out of its range.
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    ramp: float = 0.25
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        set_checked(
            self,
            epochs=count("epochs", self.epochs, MOST_EPOCHS),
            batch_size=positive_int("batch_size", self.batch_size),
        )
        set_checked(self, learning_rate=positive_number("learning_rate", self.learning_rate))
        for name in ("momentum", "ramp", "weight_decay"):
            set_checked(self, **{name: fraction_below_one(name, getattr(self, name))})

    def steps(self, examples: int) -> int:
        """Number of steps for a training set with this number of examples."""
        return self.epochs * -(-examples // self.batch_size)

    def sgd(self, examples: int) -> keras.optimizers.Optimizer:
        """SGD with momentum, the schedule and the weight decay.

        Keras subtracts the decay from the weights themselves, ``rate * decay`` per step. As a part
        of the gradient, as in the publications, momentum adds it up to ``1 / (1 - momentum)`` times
        as much; so Keras is given ``weight_decay / (1 - momentum)``.
        """
        import keras

        decay = self.weight_decay / (1 - self.momentum)
        schedule = self.schedule(self.steps(examples))
        optimizer = keras.optimizers.SGD(schedule, float(self.momentum), weight_decay=decay or None)
        if decay:
            optimizer.exclude_from_weight_decay(var_names=list(NOT_DECAYED))
        return optimizer

    def schedule(self, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
        """The learning rate of every step."""
        import keras

        return keras.optimizers.schedules.CosineDecay(self.learning_rate, steps)

    def beside(self, penalised: bool) -> Self:
        """The recipe for a training with or without a structured penalty: the same."""
        return self


@dataclass(frozen=True)
class Shrinking:
    """When a network is pruned while it is trained.

    Attributes:
        every: Epochs from one surgery to the next.
        always: Whether to prune also where that is not expected to save time. The expectation
            depends on measured times, so without it two trainings may differ.

    Raises:
        ValueError: ``every`` is no whole number above 0.
    """

    every: int
    always: bool = False

    def __post_init__(self) -> None:
        every, always = positive_int("every", self.every), boolean("always", self.always)
        set_checked(self, every=every, always=always)


@dataclass(frozen=True)
class DataRecipe(Recipe):
    """A recipe for one data set: the attributes of :class:`Recipe`, and these.

    Attributes:
        dataset: Name of the data set in tensorflow-datasets, or "digits".
        model: A base network of the zoo for these images.
        drops: Fractions of the training after which the learning rate falls to a tenth; none: a
            half cosine.
        augmentation: Random changes of training images.
        decay_beside_penalty: Whether weight decay stays on where a structured penalty is trained.
        side: Side that images of different sizes are cropped to; None for images of one size.
        preprocess: What the network expects of its images, see
            :func:`keras_structsparse.data.preprocessing.preprocessing`.
        source: Where the numbers are from.

    Raises:
        ValueError: A drop is not in (0, 1), or numbers do not go together.
    """

    dataset: str = "digits"
    model: str = "digits-residual"
    drops: tuple[float, ...] = ()
    augmentation: Augmentation = field(default_factory=Augmentation)
    decay_beside_penalty: bool = True
    side: int | None = None
    preprocess: str = "0..1"
    source: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        drops = several("drops", self.drops, finite)
        if not all(0 < drop < 1 for drop in drops) or list(drops) != sorted(drops):
            raise ValueError(f"drops: expected rising numbers in (0, 1). Received: {self.drops!r}")
        side = None if self.side is None else positive_int("side", self.side)
        set_checked(self, drops=drops, side=side)
        if self.augmentation.area is not None and self.side is None:
            raise ValueError(
                "side: expected a number where augmentation.area is given. Received: None"
            )

    def beside(self, penalised: bool) -> Self:
        """The recipe for a training with or without a structured penalty."""
        keeps = self.decay_beside_penalty or not penalised
        return self if keeps else replace(self, weight_decay=0.0)

    def schedule(self, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
        """The learning rate of every step: a half cosine, or drops."""
        if not self.drops:
            return super().schedule(steps)
        import keras

        rates = [self.learning_rate / 10**power for power in range(len(self.drops) + 1)]
        ends = [round(drop * steps) for drop in self.drops]
        return keras.optimizers.schedules.PiecewiseConstantDecay(ends, rates)


_SHORT = "chosen here: short, for a few cores"

RECIPES: Mapping[str, DataRecipe] = {
    "digits": DataRecipe(epochs=20, batch_size=64, source=_SHORT),
    "mnist": DataRecipe(
        epochs=20,
        batch_size=128,
        dataset="mnist",
        model="mnist-residual",
        augmentation=Augmentation(shift=2),
        source=_SHORT,
    ),
    "fashion-mnist": DataRecipe(
        epochs=20,
        batch_size=128,
        dataset="fashion_mnist",
        model="fashion-mnist-residual",
        augmentation=Augmentation(shift=2, flip=True),
        source=_SHORT,
    ),
    "cifar10": DataRecipe(
        epochs=182,
        batch_size=128,
        dataset="cifar10",
        model="cifar10-resnet20",
        drops=(0.5, 0.75),
        augmentation=Augmentation(shift=4, flip=True),
        weight_decay=1e-4,
        source="He et al. 2016, Deep Residual Learning for Image Recognition, section 4.2: "
        "64,000 steps on 45,000 images",
    ),
    "imagenet": DataRecipe(
        epochs=90,
        batch_size=256,
        dataset="imagenet2012",
        model="imagenet-resnet18",
        drops=(1 / 3, 2 / 3, 8 / 9),
        augmentation=Augmentation(flip=True, area=(0.08, 1.0)),
        weight_decay=1e-4,
        side=224,
        source="Goyal et al. 2017, Accurate, Large Minibatch SGD, section 5.1, one worker",
    ),
}
"""Recipes by name. Those of CIFAR-10 and ImageNet are not run here to the end."""
