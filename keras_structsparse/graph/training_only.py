"""Leave out the layers that act in training only, such as dropout and random augmentation.

Exported files must not hold them: many act by default when nothing says that it is no training, and
converters do not know their operations.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from keras_structsparse._typing import Tensor
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.functional_graph import Call, Graph
from keras_structsparse.graph.rebuilding import Rebuilder, rebuild

_NAMES = (
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"),
    *("AlphaDropout", "GaussianDropout", "GaussianNoise", "ActivityRegularization"),
    *("RandomBrightness", "RandomColorDegeneration", "RandomColorJitter", "RandomContrast"),
    *("RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur"),
    *("RandomGrayscale", "RandomHue", "RandomInvert", "RandomPerspective"),
    *("RandomPosterization", "RandomRotation", "RandomSaturation", "RandomSharpness"),
    *("RandomShear", "RandomTranslation", "RandomZoom"),
    *("AugMix", "CutMix", "MixUp", "RandAugment"),
)

TRAINING_ONLY = frozenset(getattr(layers, name) for name in _NAMES if hasattr(layers, name))
"""The types of layers that return their input outside of training, in the installed Keras."""


def without_training_layers(model: keras.Model) -> tuple[keras.Model, tuple[str, ...]]:
    """The network for inference, without layers that act in training only.

    Args:
        model: A functional or built Sequential model; it is not changed.

    Returns:
        The network, the given one if there is nothing to leave out, and the names of the layers
        that were left out. Layers that are called with ``training=True`` are kept.

    Raises:
        ModelError: The model has no graph, or a layer cannot be copied.

    Examples:
        >>> stack = [keras.Input((4,)), layers.GaussianNoise(0.1, name="noise"), layers.Dense(2)]
        >>> network, names = without_training_layers(keras.Sequential(stack))
        >>> [type(layer).__name__ for layer in network.layers], names
        (['InputLayer', 'Dense'], ('noise',))
    """
    graph = functional_graph.read(model)
    gone = {
        call.name: call.operation
        for call in graph.layers()
        if all(_is_idle(graph, own) for own in graph.calls_of[id(call.operation)])
    }
    if not gone:
        return model, ()
    copies = Rebuilder(graph, gone.values())

    def replace(call: Call, tensors: list[Tensor | None]) -> Sequence[Tensor | None]:
        outputs = copies(call, tensors)
        if id(call.operation) not in copies.gone:
            return outputs
        return [_cast(graph, call, tensor) for tensor in outputs]

    return rebuild(graph, replace), tuple(gone)


def _is_idle(graph: Graph, call: Call) -> bool:
    one = len(call.inputs) == len(call.outputs) == 1
    return type(call.operation) in TRAINING_ONLY and one and not call.is_training


def _cast(graph: Graph, call: Call, tensor: Tensor) -> Tensor:
    """The tensor with the dtype of the layer's output: images may be whole numbers."""
    dtype = graph.dtypes[call.outputs[0]]
    if graph.dtypes[call.inputs[0]] == dtype:
        return tensor
    return layers.Rescaling(1.0, dtype=dtype, name=f"{call.name.replace('/', '_')}_cast")(tensor)
