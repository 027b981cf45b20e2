"""What the loss would lose without groups of kernel entries, as a value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_structsparse._records import check_format, parse_json
from keras_structsparse._typing import Array
from keras_structsparse._validation import MIXED, one_of, set_checked
from keras_structsparse.graph.nested_groups import GROUPS

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
        groups: The kind of groups: "half_ring", "ring" or "kernel"; or "mixed": half-rings, but
            whole depthwise kernels.

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
        one_of("groups", self.groups, (*GROUPS, MIXED))
        for name in ("first", "second"):
            given = getattr(self, name)
            if not isinstance(given, Mapping):
                raise ValueError(
                    f"saliency: expected '{name}' as arrays by name of the layer. Received: "
                    f"{type(given).__name__}"
                )
            arrays = {key: _numbers(key, own) for key, own in given.items()}
            set_checked(self, **{name: arrays})
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
        try:
            content: Any = parse_json(text)
        except (TypeError, ValueError) as error:
            raise ValueError(f"saliency: expected JSON. Received: {error}") from error
        check_format(content, FORMAT, "saliency")
        keys = ("first", "second", "groups")
        parts: dict[str, Any] = {key: content.get(key) for key in keys}
        return cls(**parts)


def _numbers(layer: str, given: Any) -> Array:
    """The numbers of a layer, if they are what a saliency has."""
    try:
        found = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        found = np.full(1, np.nan)
    if found.ndim != 2 or not np.isfinite(found).all() or found.min(initial=0.0) < 0:
        raise ValueError(
            f"saliency: layer '{layer}': expected finite numbers >= 0 of the shape (groups, "
            f"kernels). Received: {np.array2string(np.asarray(found), threshold=8)}"
        )
    return found
