"""Which layers a penalty is put on, and what is said of the others."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Mapping

import keras

from keras_structsparse.errors import ModelError
from keras_structsparse.graph import functional_graph, left_out
from keras_structsparse.graph.prunable_layers import PrunableLayers, way_to_norm


def chosen_layers(found: PrunableLayers, names: Iterable[str] | None) -> Mapping[str, keras.Layer]:
    """The layers that a penalty is put on, by name.

    Args:
        found: The prunable layers of the model.
        names: The names that the user gives; None for all trainable convolutions. Then one warning
            names the layers that are left out.

    Raises:
        ModelError: None is given, and the model has no such convolution.
        ValueError: A layer has no kernels that can be removed one by one, or no name is given.
    """
    available = found.regularizable
    if names is None:
        chosen = {
            name: layer
            for name, layer in available.items()
            if name in found.convolutions and layer.trainable
        }
        if not chosen:
            raise ModelError(
                f"Model '{found.model.name}' has no convolutions to regularize. Expected at "
                "least one convolution with groups=1, such as Conv2D or SeparableConv2D, that is "
                "trainable; dense layers are regularized if they are named by "
                f"`layers`.{_wrapped(found.graph)}"
            )
        _say_left_out(found, chosen)
        return chosen
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError("layers: expected at least one name. Received: none")
    for name in names:
        if name not in available:
            raise ValueError(_unavailable(found.graph, available, name))
    return {name: available[name] for name in names}


def _say_left_out(found: PrunableLayers, chosen: Mapping[str, keras.Layer]) -> None:
    """One warning for all layers with kernels that the penalty does not serve."""
    rest = left_out.left_out(found.graph, chosen)
    if rest:
        warnings.warn(
            f"attach leaves out layers of '{found.model.name}' whose kernels it cannot penalise: "
            f"{left_out.described(rest)}",
            stacklevel=4,
        )


def _wrapped(network: functional_graph.Graph) -> str:
    """What a message says of wrapped layers, whose kernels are left out."""
    found = [
        f"'{call.name}', a {type(call.operation).__name__} of {type(call.operation.layer).__name__}"
        for call in network.layers()
        if isinstance(call.operation, keras.layers.Wrapper)
    ]
    return f" Received layers inside of wrappers: {', '.join(found)}." if found else ""


def _unavailable(network: functional_graph.Graph, available: Iterable[str], name: str) -> str:
    near = difflib.get_close_matches(str(name), available, 3, 0.4) or available
    kinds = [type(call.operation).__name__ for call in network.layers() if call.name == name]
    return (
        "layers: expected names of ungrouped, depthwise or separable convolutions (not transposed "
        f"ones) or dense layers, such as {', '.join(near)}. "
        f"Received: {name!r}{', a ' + kinds[0] if kinds else ''}"
    )


def scaled_norm(name: str, norm: keras.Layer) -> keras.Layer:
    """The batch normalisation behind a layer.

    Args:
        name: Name of the layer.
        norm: The normalisation.

    Raises:
        ModelError: It has no scale.
    """
    if not norm.scale:
        raise ModelError(
            f"Layer '{name}' is followed by the batch normalisation '{norm.name}' with "
            "scale=False, so the norm of its kernels has no effect and cannot be penalised. "
            "Use kss.with_scales(model), which adds scales of 1, build the model with "
            "scale=True, or leave the layer out with `layers`."
        )
    return norm


def warn_of_hidden_scales(found: PrunableLayers, chosen: Mapping[str, keras.Layer]) -> None:
    """Warn of layers whose scale a normalisation hides that is no pair.

    Args:
        found: The prunable layers of the model.
        chosen: The layers that the penalty is put on.
    """
    for call in found.graph.layers():
        if call.name in chosen and call.name not in found.batch_norms:
            way = way_to_norm(found.graph, call)
            if way is not None:
                between = ", ".join(each.name for each in way[:-1]) or "its activation or axis"
                warnings.warn(
                    f"Layer '{call.name}': the batch normalisation '{way[-1].name}' behind it "
                    "hides the scale of its kernels, but its channels are not known to be those of "
                    f"the layer ({between}). So the penalty is that of the kernels as they are, "
                    "and the normalisation may undo it. Register a rule for what is between, or "
                    "leave the layer out with `layers`.",
                    stacklevel=3,
                )
