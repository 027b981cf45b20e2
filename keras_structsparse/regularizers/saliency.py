"""What the loss would lose without groups of kernel entries, as a value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_structsparse._typing import Array

FORMAT = "keras_structsparse.saliency/1"


@dataclass(frozen=True, eq=False)
class Saliency:
    """What the loss of a network would lose without each of its nested groups.

    For a group G of the kernel entries w with the gradients g, and batches b:

    - first order: the mean over b of ``|sum over G of g w|``;
    - second order: half the mean of its square, times the number of examples of a batch: the
      empirical Fisher information in place of the Hessian (Molchanov et al. 2019).

    Attributes:
        first: First order (groups, kernels) by name of the layer, ``G_1`` first.
        second: Second order, likewise.
        groups: The kind of groups: "half_ring", "ring" or "kernel".

    Raises:
        ValueError: The arrays of a layer have different shapes, or are not finite and >= 0.

    Examples:
        >>> saliency = Saliency({"conv": [[0.1, 0.2]]}, {"conv": [[0.01, 0.04]]}, "kernel")
        >>> Saliency.from_json(saliency.to_json()).second["conv"].tolist()
        [[0.01, 0.04]]
    """

    first: Mapping[str, Array]
    second: Mapping[str, Array]
    groups: str

    def __post_init__(self) -> None:
        for name in ("first", "second"):
            arrays = {key: np.asarray(own, np.float64) for key, own in getattr(self, name).items()}
            for key, own in arrays.items():
                if own.ndim != 2 or not np.isfinite(own).all() or own.min(initial=0.0) < 0:
                    raise ValueError(
                        f"saliency: layer '{key}': expected finite numbers >= 0 of the shape "
                        f"(groups, kernels). Received: an array of the shape {own.shape}"
                    )
            object.__setattr__(self, name, arrays)
        shapes = [
            {key: own.shape for key, own in each.items()} for each in (self.first, self.second)
        ]
        if shapes[0] != shapes[1]:
            raise ValueError(
                "saliency: expected arrays of the same shapes for both orders. Received: "
                f"{shapes[0]} and {shapes[1]}"
            )

    def to_json(self) -> str:
        """The saliency as JSON text, which :meth:`from_json` reads."""
        orders = {
            name: {key: own.tolist() for key, own in getattr(self, name).items()}
            for name in ("first", "second")
        }
        return json.dumps({"format": FORMAT, "groups": self.groups, **orders}) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Saliency:
        """Read a saliency from JSON text.

        Args:
            text: What :meth:`to_json` wrote.

        Raises:
            ValueError: The text is not JSON, or not a saliency of this format.
        """
        content: Any = json.loads(text)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            found = content.get("format") if isinstance(content, dict) else type(content).__name__
            raise ValueError(f'saliency: expected "format": "{FORMAT}". Received: {found!r}')
        return cls(content["first"], content["second"], content["groups"])
