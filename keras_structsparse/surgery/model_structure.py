"""The names and shapes of a model's weights, by which a model is known again in another process."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from keras_structsparse.graph.functional_graph import Graph

WeightShape = tuple[str, tuple[int, ...]]

UNNAMED = re.compile(r"^variable(_\d+)?$")
"""The names that Keras makes up for weights; their numbers differ between processes."""


@dataclass(frozen=True)
class Structure:
    """The names and shapes of a model's weights: all that must agree with the model of a plan.

    Attributes:
        name: The name of the model, for messages only.
        layers: By name of the layer, name and shape of each of its weights.
    """

    name: str
    layers: Mapping[str, tuple[WeightShape, ...]]

    @classmethod
    def of(cls, network: Graph) -> Structure:
        """The structure of a model that was read; nested models are opened."""
        layers = {
            call.name: tuple(
                (UNNAMED.sub("variable", weight.name), tuple(weight.shape))
                for weight in call.operation.weights
            )
            for call in network.layers()
        }
        return cls(network.model.name, layers)

    def differences(self, other: Structure) -> tuple[str, ...]:
        """What is different in another structure, a sentence for each layer; empty if they agree.

        Layers without weights do not count.
        """
        names = dict.fromkeys((*self.layers, *other.layers))
        pairs = {n: (self.layers.get(n, ()), other.layers.get(n, ())) for n in names}
        return tuple(
            f"layer '{name}' has {_listed(here)} in '{self.name}', {_listed(there)} in "
            f"'{other.name}'"
            for name, (here, there) in pairs.items()
            if here != there
        )


def _listed(weights: tuple[WeightShape, ...]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in weights) or "no weights"
