"""The number by which a network is judged: a metric of the compiled model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

RISING = ("acc", "auc", "precision", "recall", "iou", "f1", "fbeta", "r2", "dice", "psnr", "top")
"""Parts of the names of metrics that are better when they are larger."""


@dataclass(frozen=True)
class Judge:
    """Which metric judges a network, and whether larger values are better.

    Attributes:
        metric: Its name in the logs of Keras.
        rises: Whether larger values are better.
    """

    metric: str
    rises: bool

    @classmethod
    def of(cls, logs: Mapping[str, float]) -> Judge:
        """The first metric besides the loss; the loss where there is none.

        Args:
            logs: What ``model.evaluate(..., return_dict=True)`` returned.

        Examples:
            >>> Judge.of({"loss": 0.1, "accuracy": 0.9})
            Judge(metric='accuracy', rises=True)
        """
        losses = [name for name in logs if name == "loss" or name.endswith("_loss")]
        name = next((each for each in logs if each not in losses), "loss")
        return cls(name, any(part in name.lower() for part in RISING))

    def drop(self, before: Mapping[str, float], after: Mapping[str, float]) -> float:
        """How much worse a network is; negative if it is better.

        Args:
            before: The metrics of the network before.
            after: The metrics of the network after.

        Examples:
            >>> round(Judge("accuracy", True).drop({"accuracy": 0.9}, {"accuracy": 0.88}), 3)
            0.02
        """
        change = after[self.metric] - before[self.metric]
        return -change if self.rises else change
