"""Model files as Keras 2 wrote them, made from models of Keras 3."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import keras

Config = dict[str, Any]

OLD_ARGUMENTS: Mapping[str, Config] = {
    "LSTM": {"time_major": False, "implementation": 2},
    "GRU": {"time_major": False, "implementation": 1},
    "SimpleRNN": {},
    "DepthwiseConv2D": {"groups": 1},
    "Conv2DTranspose": {"groups": 1},
    "SeparableConv2D": {"groups": 1, "kernel_initializer": None, "kernel_regularizer": None},
    "Embedding": {"input_length": None},
    "InputLayer": {"ragged": False, "sparse": False},
    "BatchNormalization": {"renorm": False, "fused": True, "virtual_batch_size": None},
}
"""What Keras 2 wrote beside the arguments of Keras 3."""

NEW_ARGUMENTS = ("optional", "quantization_config", "lora_rank", "lora_alpha", "lora_dtype")


def old_object(node: Config, modules: bool = False) -> Config:
    """The configuration of a model or layer in the form of Keras 2.

    Args:
        node: The form of Keras 3.
        modules: Whether modules are written, as from Keras 2.12 on.
    """
    kind, own = node["class_name"], dict(node["config"])
    if kind in ("Sequential", "Functional"):
        return _old_model(kind, own, node, modules)
    for name in NEW_ARGUMENTS:
        own.pop(name, None)
    own = {name: _old_value(value, modules) for name, value in own.items()}
    if "batch_shape" in own:
        own["batch_input_shape"] = own.pop("batch_shape")
    if kind == "LeakyReLU":
        own["alpha"] = own.pop("negative_slope")
    if kind == "BatchNormalization":
        own["axis"] = [3] if own["axis"] == -1 else [own["axis"]]
    own.update(OLD_ARGUMENTS.get(kind, {}))
    return _with_graph({"class_name": kind, "config": own}, node, modules, "keras.layers")


def _old_model(kind: str, own: Config, node: Config, modules: bool) -> Config:
    layers = [old_object(layer, modules) for layer in own["layers"]]
    if kind == "Sequential" and not modules:
        first = layers.pop(0)["config"]
        layers[0]["config"]["batch_input_shape"] = first["batch_input_shape"]
    new = {"name": own["name"], "layers": layers}
    if kind == "Functional":
        ends = {k: _listed(own[k]) for k in ("input_layers", "output_layers")}
        new.update(ends)
    home = f"keras.src.engine.{kind.lower()}"
    name = kind if modules or kind == "Sequential" else "Model"
    return _with_graph({"class_name": name, "config": new}, node, modules, home)


def _listed(ends: Any) -> Any:
    return [ends] if ends and isinstance(ends[0], str) else ends


def _with_graph(new: Config, node: Config, modules: bool, home: str) -> Config:
    if modules:
        new = {"module": home, **new, "registered_name": None}
    if "inbound_nodes" in node:
        new["name"] = node["name"]
        new["inbound_nodes"] = [_old_call(call) for call in node["inbound_nodes"]]
    return new


def _old_call(call: Config) -> list[Any]:
    options = dict(call["kwargs"])
    given = [*_tensors(call["args"]), *_tensors(options.pop("initial_state", None))]
    options = {k: v for k, v in options.items() if v is not None}
    return [[*tensor["config"]["keras_history"], options] for tensor in given]


def _tensors(value: Any) -> list[Config]:
    if isinstance(value, dict):
        return [value] if value.get("class_name") == "__keras_tensor__" else []
    return [t for each in value for t in _tensors(each)] if isinstance(value, list) else []


def _old_value(value: Any, modules: bool) -> Any:
    if isinstance(value, Mapping) and value.get("class_name") == "DTypePolicy":
        return value["config"]["name"]
    if isinstance(value, Mapping) and {"class_name", "config"} <= set(value):
        if str(value.get("module", "")).startswith("keras.layers"):
            return old_object(dict(value), modules)
        new = {"class_name": value["class_name"], "config": value["config"]}
        return {"module": value["module"], **new, "registered_name": None} if modules else new
    return value


def as_old_h5(
    model: keras.Model,
    path: Path,
    version: str = "2.4.0",
    change: Callable[[Config], Config] = lambda config: config,
    backend: str = "tensorflow",
) -> Path:
    """Write a legacy HDF5 file of Keras 2.

    Args:
        model: The model.
        path: The file; its name may end in anything.
        version: The version of Keras.
        change: Changes the configuration before it is written.
        backend: The backend.
    """
    plain = path.with_suffix(".h5")
    model.save(plain)
    with h5py.File(plain, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        file.attrs["model_config"] = json.dumps(change(old_object(config)))
        file.attrs["keras_version"], file.attrs["backend"] = version, backend
    return plain.rename(path)


def as_old_archive(model: keras.Model, path: Path, counted_twice: bool, separator: str) -> Path:
    """Write a ``.keras`` archive of Keras 2.13 or 2.14.

    Args:
        model: The model.
        path: The file.
        counted_twice: Whether layers with weights are counted twice, as some versions do.
        separator: Between the parts of the names of groups; Windows wrote another one.
    """
    new = path.with_suffix(".new.keras")
    model.save(new)
    with zipfile.ZipFile(new) as archive:
        config = old_object(json.loads(archive.read("config.json")), modules=True)
        archive.extract("model.weights.h5", path.parent)
    weights, old = path.parent / "model.weights.h5", path.parent / "old.h5"
    with h5py.File(weights, "r") as source, h5py.File(old, "w") as target:
        source.visititems(lambda name, item: _put(target, name, item, counted_twice, separator))
        target["optimizer/vars/0"] = 1.0
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "2.14.0"}))
        archive.writestr("config.json", json.dumps(config))
        archive.write(old, "model.weights.h5")
    return path


def _put(target: h5py.File, name: str, item: Any, counted_twice: bool, separator: str) -> None:
    if not isinstance(item, h5py.Dataset) or "seed_generator" in name:
        return
    group, _, number = name.rpartition("/vars/")
    parts = group.split("/")
    if counted_twice:
        before = ["", *parts]
        parts = [_twice(p) if b == "layers" else p for b, p in zip(before, parts, strict=False)]
    new = ["_layer_checkpoint_dependencies" if part == "layers" else part for part in parts]
    target[f"{separator.join(new)}/vars/{number}"] = item[...]


def _twice(name: str) -> str:
    kind, _, number = name.rpartition("_")
    return f"{kind}_{2 * int(number)}" if kind and number.isdecimal() else name
