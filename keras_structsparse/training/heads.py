"""The last layers of a network that is to classify: taken as they are, or made new."""

from __future__ import annotations

import keras

from keras_structsparse._typing import Array, Tensor
from keras_structsparse._validation import HEADS, one_of
from keras_structsparse.errors import ModelError
from keras_structsparse.graph import functional_graph
from keras_structsparse.training.classifier import check_images
from keras_structsparse.training.shrink.stages import compile_options

POOLINGS = {
    3: keras.layers.GlobalAveragePooling1D,
    4: keras.layers.GlobalAveragePooling2D,
    5: keras.layers.GlobalAveragePooling3D,
}
"""What makes features of maps, by the number of their axes."""

SIGNS = ("binary_crossentropy", "binary_focal_crossentropy")
"""Losses of Keras that take class numbers of two classes."""

NUMBERS = "sparse_categorical_crossentropy"
"""The loss of Keras that takes class numbers."""


def image_side(model: keras.Model) -> int | None:
    """Height and width of the images that a network takes; None if they are open or differ.

    Args:
        model: The network.

    Examples:
        >>> image_side(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(5, 3)]))
        8
    """
    shape = model.inputs[0].shape[1:]
    return shape[0] if len(shape) == 3 and shape[0] == shape[1] else None


def needs_head(model: keras.Model, classes: int, head: str = "auto", name: str = "model") -> bool:
    """Whether a network gets a new head before it can classify.

    Args:
        model: The network.
        classes: Number of classes.
        head: "auto" if its outputs are no classes of this number, "new" for yes, "none" for no.
        name: What the user calls the network, for errors.

    Raises:
        ModelError: It has several outputs; or it has no such outputs and ``head`` is "none".
        ValueError: ``head`` is unknown.

    Examples:
        >>> needs_head(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(5, 3)]), 5)
        True
    """
    one_of("head", head, HEADS)
    shapes = [tuple(tensor.shape[1:]) for tensor in model.outputs]
    if len(shapes) != 1:
        raise ModelError(f"{name}: expected a model with one output. Received: {len(shapes)}")
    fits = shapes[0] == (classes,) or (shapes[0] == (1,) and classes == 2)
    if head == "none" and not fits:
        raise ModelError(
            f"{name}: expected an output of shape ({classes},), the classes of the data. Received: "
            f"{shapes[0]}; structsparse shrink --head auto gives the network a new head"
        )
    return head == "new" or not fits


def with_head(model: keras.Model, classes: int) -> keras.Model:
    """A network with a new head, untrained: the mean of its maps, and a dense layer with softmax.

    Of a network that gives no maps but a vector, a last dense layer is left out.

    Args:
        model: The network; its layers are shared.
        classes: Number of classes.

    Returns:
        A functional model.

    Raises:
        ModelError: The network has no graph, or its outputs have another number of axes.

    Examples:
        >>> base = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(5, 3)])
        >>> [type(layer).__name__ for layer in with_head(base, 2).layers[-2:]]
        ['GlobalAveragePooling2D', 'Dense']
    """
    features = _features(model)
    axes = len(features.shape)
    if axes in POOLINGS:
        features = POOLINGS[axes]()(features)
    elif axes != 2:
        raise ModelError(
            f"Model '{model.name}': expected maps or vectors as outputs. Received: outputs of "
            f"shape {tuple(features.shape[1:])}"
        )
    head = keras.layers.Dense(classes, activation="softmax", dtype="float32")
    graph = functional_graph.functional(model)
    return functional_graph.new_model(graph.inputs[0], head(features), model.name)


def _features(model: keras.Model) -> Tensor:
    """The outputs of a network, or what its last dense layer reads."""
    graph = functional_graph.read(model, nested=False)
    makers = {index: call for call in graph.calls for index in call.outputs}
    output = index = graph.outputs[0]
    passed = keras.layers.Activation | keras.layers.Softmax | keras.layers.Dropout
    while index in makers and isinstance(makers[index].operation, passed):
        index = makers[index].inputs[0]
    if len(graph.shapes[output]) != 2 or index not in makers:
        return graph.tensors[output]
    last = makers[index]
    is_head = isinstance(last.operation, keras.layers.Dense)
    return graph.tensors[last.inputs[0] if is_head else output]


def ready_to_shrink(
    model: keras.Model, images: Array, name: str = "model", data: str = "data"
) -> str:
    """Compile a classifier so that it can be trained on class numbers, if it is not.

    A loss and metrics that it was compiled with are kept if they take class numbers.

    Args:
        model: The network; its outputs are those of the classes.
        images: Some images.
        name: What the user calls the network, for errors.
        data: What the user calls the data set, for errors.

    Returns:
        The loss that the network was compiled with now; empty if it is as it was.

    Raises:
        ModelError: The network does not take the images.

    Examples:
        >>> import numpy as np
        >>> network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> ready_to_shrink(network, np.ones((2, 4)))
        'sparse_categorical_crossentropy'
        >>> network.loss.from_logits
        True
    """
    check_images(model, images, name, data)
    width = int(model.outputs[0].shape[-1])
    if _takes_numbers(model, width):
        options = compile_options(model)
        if not options.get("metrics"):
            model.compile(model.optimizer, **{**options, "metrics": ["accuracy"]})
        return ""
    logits = not _are_probabilities(model, images)
    if width == 1:
        loss: keras.Loss = keras.losses.BinaryCrossentropy(from_logits=logits)
    else:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
    metric = keras.metrics.BinaryAccuracy("accuracy", threshold=0.0 if logits else 0.5)
    model.compile("adam", loss, metrics=[metric if width == 1 else "accuracy"])
    return str(loss.name)


def _takes_numbers(model: keras.Model, width: int) -> bool:
    """Whether a model is compiled with a loss of the user, or one of Keras for class numbers."""
    if not model.compiled or getattr(model, "loss", None) is None:
        return False
    loss = model.loss
    name = loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", ""))
    if not hasattr(keras.losses, str(name)):
        return isinstance(loss, keras.Loss) or callable(loss)
    return name in SIGNS if width == 1 else name == NUMBERS


def _are_probabilities(model: keras.Model, images: Array) -> bool:
    answers = keras.ops.convert_to_numpy(keras.tree.flatten(model(images, training=False))[0])
    total = answers.sum(axis=-1) if answers.shape[-1] > 1 else answers.max()
    if answers.shape[-1] == 1:
        return bool(answers.min() >= 0 and total <= 1)
    return bool(answers.min() >= 0 and abs(total - 1.0).max() < 1e-2)
