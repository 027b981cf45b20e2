"""The architecture of a network: depth, widths, kernel sizes, parameters and multiply-adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from keras_structsparse.graph.functional_graph import Graph
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.profile import profile
from keras_structsparse.profiling.summaries import Profile


@dataclass(frozen=True)
class Architecture:
    """The properties of a network that Table 1 of the paper lists.

    Attributes:
        depth: The largest number of layers with kernels on a path from an input to an output,
            including the classifier; 1x1 convolutions of shortcuts are on shorter paths.
        widths: The distinct widths of the convolutions, ascending.
        sizes: The distinct sides of their kernels, in positions, ascending.
        params: Number of parameters, as Keras counts them: the moving statistics of batch
            normalisations are among them.
        multiply_adds: Multiply-adds for one example (eq. 10).
    """

    depth: int
    widths: tuple[int, ...]
    sizes: tuple[int, ...]
    params: int
    multiply_adds: int


def architecture(model: keras.Model, input_shape: Sequence[int] | None = None) -> Architecture:
    """Summarize the architecture of a network.

    Args:
        model: A functional or built Sequential model.
        input_shape: (height, width, channels), if the model leaves them open.

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
    found = PrunableLayers.of(model)
    costs = profile(found, input_shape)
    convolutions = [layer for layer in costs.layers if layer.kernels and layer.size]
    return Architecture(
        depth=_depth(found.graph, costs),
        widths=tuple(sorted({layer.kernels for layer in convolutions})),
        sizes=tuple(sorted({side for layer in convolutions for side in layer.size})),
        params=model.count_params(),
        multiply_adds=costs.multiply_adds,
    )


def _depth(network: Graph, costs: Profile) -> int:
    """The number of layers with kernels on the longest path."""
    counted = {layer.name for layer in costs.layers if layer.kernels}
    depths = dict.fromkeys(network.inputs, 0)
    for call in network.calls:
        before = max((depths.get(tensor, 0) for tensor in call.inputs), default=0)
        depths.update(dict.fromkeys(call.outputs, before + (call.name in counted)))
    return max(depths[tensor] for tensor in network.outputs)
