"""How to train on a data set, as data: length, schedule, augmentation, weight decay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import keras

from keras_structsparse.data.image_streams import Augmentation
from keras_structsparse.training.fit import Recipe


@dataclass(frozen=True)
class DataRecipe(Recipe):
    """A recipe for one data set.

    The attributes of :class:`keras_structsparse.training.fit.Recipe`, and these.

    Attributes:
        dataset: Name of the data set in tensorflow-datasets, or "digits".
        model: A base that goes with it.
        drops: Shares of the training after which the rate falls to a tenth; none: a half cosine.
        augmentation: Random changes of training images.
        decay_beside_penalty: Whether weight decay stays on where a structured penalty is trained.
        side: Side that images of different sizes are cut to; None for images of one size.
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
    source: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 < drop < 1 for drop in self.drops) or list(self.drops) != sorted(self.drops):
            raise ValueError(f"drops: expected rising numbers in (0, 1). Received: {self.drops!r}")
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
