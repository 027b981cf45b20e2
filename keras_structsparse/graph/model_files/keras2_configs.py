"""Translate the configurations of Keras 2 to Keras 3, where only their form differs.

What Keras 3 computes differently, or not at all, is refused by name: a translated model computes
what Keras 2 computed.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from keras_structsparse.errors import ModelError
from keras_structsparse.graph.model_files.keras2_graphs import with_new_calls

Config = dict[str, Any]

HOMES: Mapping[str, Any] = {
    "keras.layers": keras.layers,
    "keras.initializers": keras.initializers,
    "keras.regularizers": keras.regularizers,
    "keras.constraints": keras.constraints,
}
"""Where Keras 3 has the classes that configurations name."""

_HOMES_OF_ARGUMENTS = {
    "initializer": "keras.initializers",
    "regularizer": "keras.regularizers",
    "constraint": "keras.constraints",
}

MODELS = {"Model": "Model", "Functional": "Model", "Sequential": "Sequential"}
"""The classes of models; `keras.Model.from_config` makes functional ones."""

_RENAMED = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
    "LayerNormalizationV1": "LayerNormalization",
    "LSTMV1": "LSTM",
    "LSTMV2": "LSTM",
    "UnifiedLSTM": "LSTM",
    "GRUV1": "GRU",
    "GRUV2": "GRU",
    "UnifiedGRU": "GRU",
    "Deconvolution2D": "Conv2DTranspose",
    "Deconvolution3D": "Conv3DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
}

_POLICIES = ("Policy", "PolicyV1", "DTypePolicy")

_ACTIVATIONS = {"softmax_v2": "softmax", "relu_v2": "relu", "swish_v2": "silu"}

_ANY = object()

_DROPPED: Mapping[str, tuple[Any, ...]] = {
    "batch_input_shape": (_ANY,),
    "input_length": (_ANY,),
    "implementation": (_ANY,),
    "fused": (_ANY,),
    "renorm": (False,),
    "renorm_clipping": (None,),
    "renorm_momentum": (_ANY,),
    "virtual_batch_size": (None,),
    "adjustment": (None,),
    "time_major": (False,),
    "ragged": (False, None),
    "sparse": (False, None),
    "dynamic": (False,),
    "groups": (1,),
    "kernel_initializer": (_ANY,),
    "kernel_regularizer": (None,),
    "kernel_constraint": (None,),
    "experimental_run_tf_function": (_ANY,),
}
"""Arguments that some layers of Keras 3 lack, with the values that have no effect."""

_NEW_NAMES: Mapping[str, Mapping[str, str]] = {"LeakyReLU": {"alpha": "negative_slope"}}
"""Arguments that Keras 3 calls otherwise, by class of layer."""

_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "GRU": {"reset_after": False},
    "GRUCell": {"reset_after": False},
}
"""Arguments that old files lack, where the default has changed since."""


def translated(config: Config) -> Config:
    """The configuration of a model of Keras 2 in the form of Keras 3.

    Args:
        config: The configuration, with "class_name" and "config"; it is not changed.

    Returns:
        The new configuration.

    Raises:
        ModelError: An argument has a value that Keras 3 has no equivalent for.

    Examples:
        >>> layer = {"class_name": "Dense", "config": {"units": 2, "batch_input_shape": [None, 3]}}
        >>> new = translated({"class_name": "Sequential", "config": [layer]})
        >>> [layer["class_name"] for layer in new["config"]["layers"]]
        ['InputLayer', 'Dense']
    """
    return _object(config, "keras.layers")


def is_known(kind: str) -> bool:
    """Whether Keras 3 has a class, or another one in its place.

    Args:
        kind: The name of a class of layers, models, initializers or the like.
    """
    kind = _RENAMED.get(kind, kind)
    return kind in MODELS or kind in _POLICIES or _home(kind, "keras.layers") is not None


def _object(node: Mapping[str, Any], home: str) -> Config:
    """The configuration of a model, layer, initializer or the like."""
    kind, own = str(node["class_name"]), node["config"]
    if kind in MODELS and isinstance(own, Mapping | list):
        return _model(node, kind)
    kind = _RENAMED.get(kind, kind)
    found = _home(kind, home)
    if found is None or not isinstance(own, Mapping):
        return {**node, "config": _value(own, home)}
    module = found
    arguments = {name: _argument(name, value) for name, value in own.items()}
    if module == "keras.layers":
        arguments = _of_layer(kind, arguments)
    if module == "keras.initializers":
        arguments.pop("dtype", None)
    return _serialized(module, kind, arguments, node)


def _home(kind: str, first: str) -> str | None:
    """The module of Keras that has a class; several have an ``Identity``."""
    homes = (first, *(module for module in HOMES if module != first))
    return next((m for m in homes if isinstance(getattr(HOMES[m], kind, None), type)), None)


def _model(node: Mapping[str, Any], kind: str) -> Config:
    own = {"layers": node["config"]} if isinstance(node["config"], list) else dict(node["config"])
    layers = [_object(layer, "keras.layers") for layer in own.get("layers", [])]
    name = {"name": own.get("name") or node.get("name") or kind.lower()}
    kept = {key: own[key] for key in ("trainable", "input_layers", "output_layers") if key in own}
    if kind == "Sequential":
        new: Config = {"layers": [*_missing_input(own), *layers]}
    else:
        new = with_new_calls(kept, layers)
    return _serialized("keras", MODELS[kind], {**name, **new}, node)


def _serialized(module: str, kind: str, own: Config, node: Mapping[str, Any]) -> Config:
    """An object in the form of Keras 3, with what a graph says of it."""
    of_graph = {key: node[key] for key in ("name", "inbound_nodes") if key in node}
    new = {"module": module, "class_name": kind, "config": own, "registered_name": None}
    return {**new, **of_graph}


def _missing_input(model: Mapping[str, Any]) -> Iterator[Config]:
    """The input layer of a Sequential model whose first layer has the shape of the input."""
    first = next(iter(model.get("layers", [])), None)
    own = first["config"] if first else {}
    if not isinstance(own, Mapping):
        return
    shape = own.get("batch_input_shape") or model.get("build_input_shape")
    if not first or first["class_name"] in ("InputLayer", *MODELS) or shape is None:
        return
    dtype = own.get("dtype", "float32")
    arguments = {
        "batch_shape": list(shape),
        "dtype": dtype if isinstance(dtype, str) else "float32",
        "name": f"{own.get('name', 'first')}_input",
    }
    yield _serialized("keras.layers", "InputLayer", arguments, {})


def _argument(name: str, value: Any) -> Any:
    """The value of an argument of a layer or the like."""
    if name == "dtype" and isinstance(value, Mapping) and value.get("class_name") in _POLICIES:
        return value["config"].get("name", "float32")
    if name.endswith("activation") and isinstance(value, str):
        return _ACTIVATIONS.get(value, value)
    return _value(value, _HOMES_OF_ARGUMENTS.get(name.rpartition("_")[2], "keras.layers"))


def _value(value: Any, home: str) -> Any:
    if isinstance(value, Mapping):
        if value.get("type") == "ndarray":
            return value["value"]
        if {"class_name", "config"} <= set(value):
            return _object(value, home)
        return {name: _value(each, home) for name, each in value.items()}
    return [_value(each, home) for each in value] if isinstance(value, list) else value


def _of_layer(kind: str, arguments: Config) -> Config:
    """The arguments of a layer that Keras 3 takes."""
    accepted = _accepted(getattr(keras.layers, kind))
    if "batch_shape" in accepted and "batch_input_shape" in arguments:
        arguments["batch_shape"] = arguments["batch_input_shape"]
    axis = arguments.get("axis")
    if isinstance(axis, list) and len(axis) == 1:
        arguments["axis"] = int(axis[0])
    names = _NEW_NAMES.get(kind, {})
    kept = {
        names.get(name, name): value
        for name, value in arguments.items()
        if name in accepted or not _drops(kind, arguments, name)
    }
    return {**_DEFAULTS.get(kind, {}), **kept}


def _drops(kind: str, arguments: Config, name: str) -> bool:
    """Whether an argument that the layer does not take has no effect anyway."""
    if name not in _DROPPED:
        return False
    harmless, value = _DROPPED[name], arguments[name]
    if harmless != (_ANY,) and value not in harmless:
        raise ModelError(
            f"layer '{arguments.get('name', '')}' ({kind}): {name}={value!r} is an argument of "
            "Keras 2 that Keras 3 does not have"
        )
    return True


def _accepted(kind: type) -> frozenset[str]:
    """The names of the arguments of a class of layers, with those that it hands to its bases."""
    names: set[str] = set()
    for base in kind.__mro__:
        if "__init__" not in base.__dict__:
            continue
        parameters = inspect.signature(base.__dict__["__init__"]).parameters
        names.update(parameters)
        if all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            break
    return frozenset(names - {"self", "args", "kwargs"})
