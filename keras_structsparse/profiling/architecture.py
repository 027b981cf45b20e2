"""The architecture of a network: its depth, layer widths and kernel sizes, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.functional_graph import Graph
from keras_structsparse.profiling.profile import profile
from keras_structsparse.profiling.summaries import Profile


@dataclass(frozen=True)
class Architecture:
    """What the method's Table 1 lists of a network.

    Attributes:
        depth: Most layers with kernels on a path from an input to an output, the classifier among
            them; 1x1 convolutions of shortcuts lie on shorter paths.
        widths: The different widths of its convolutions, ascending.
        sizes: The different sides of their kernels, ascending.
        params: Learned parameters: without moving statistics.
        multiply_adds: For one example (eq. 10).
    """

    depth: int
    widths: tuple[int, ...]
    sizes: tuple[int, ...]
    params: int
    multiply_adds: int


def architecture(model: keras.Model, input_shape: Sequence[int] | None = None) -> Architecture:
    """Read the architecture off a network.

    Args:
        model: A functional or built Sequential model.
        input_shape: (height, width, channels) where the model leaves them open.

    Returns:
        The architecture.

    Raises:
        ModelError: As in :func:`keras_structsparse.profile`.

    Examples:
        >>> from keras_structsparse.models import build
        >>> found = architecture(build("cifar10-resnet20"))
        >>> found.depth, found.widths, found.sizes
        (20, (16, 32, 64), (1, 3))
    """
    costs = profile(model, input_shape)
    convolutions = [layer for layer in costs.layers if layer.kernels and layer.size]
    return Architecture(
        depth=_depth(functional_graph.read(model), costs),
        widths=tuple(sorted({layer.kernels for layer in convolutions})),
        sizes=tuple(sorted({side for layer in convolutions for side in layer.size})),
        params=sum(math.prod(weight.shape) for weight in model.trainable_weights),
        multiply_adds=costs.multiply_adds,
    )


def _depth(network: Graph, costs: Profile) -> int:
    """The longest path, counted in layers with kernels."""
    weighty = {layer.name for layer in costs.layers if layer.kernels}
    depths = dict.fromkeys(network.inputs, 0)
    for call in network.calls:
        before = max((depths.get(tensor, 0) for tensor in call.inputs), default=0)
        depths.update(dict.fromkeys(call.outputs, before + (call.name in weighty)))
    return max(depths[tensor] for tensor in network.outputs)
