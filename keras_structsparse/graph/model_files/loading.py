"""Load the model of a file: of Keras 3, or of Keras 2 where its parts exist in Keras 3."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras

from keras_structsparse._typing import StrPath
from keras_structsparse.errors import ModelError
from keras_structsparse.graph.model_files import contents as model_contents
from keras_structsparse.graph.model_files import keras2_configs, keras2_weights
from keras_structsparse.graph.model_files.contents import Contents

_LONGEST_REASON = 300

_OF_TENSORFLOW = ("TFOpLambda", "TensorFlowOpLayer", "SlicingOpLambda", "ClassMethod")
_NOT_EXECUTED = "a Lambda layer, whose Python code is not run from a file"
_RECORDED = "a TensorFlow operation that Keras 2 recorded and Keras 3 cannot read"
_UNKNOWN = "a class that is not of Keras or is not registered here"
_GONE: Mapping[str, str] = {
    "CuDNNLSTM": "a layer of Keras 2 that Keras 3 does not have",
    "CuDNNGRU": "a layer of Keras 2 that Keras 3 does not have",
    "ThresholdedReLU": "a layer of Keras 2 that Keras 3 does not have",
    "LocallyConnected1D": "a layer of Keras 2 that Keras 3 does not have",
    "LocallyConnected2D": "a layer of Keras 2 that Keras 3 does not have",
    "Lambda": _NOT_EXECUTED,
    **dict.fromkeys(_OF_TENSORFLOW, _RECORDED),
}
"""Classes of layers that do not load, and what they are."""


def load_model(path: StrPath, compile: bool = False) -> keras.Model:
    """Load a model from a ``.keras`` or ``.h5`` file, of Keras 3 or 2.

    The content of the file decides, not its name. Configurations of Keras 2 are translated where
    only their form differs, and recurrent layers with its hard sigmoid get gates that are scaled to
    that of Keras 3; what Keras 3 cannot compute is refused by name. Code in the file is not run,
    unless ``keras.config.enable_unsafe_deserialization`` was called.

    Args:
        path: The file.
        compile: Whether to restore optimizer and loss as well; for files of Keras 3.

    Returns:
        The model.

    Raises:
        ModelError: The file does not exist, holds no model, or needs code that is not imported. The
            message is one sentence that says what the file is and what to do.

    Examples:
        >>> folder = Path(tempfile.mkdtemp())
        >>> keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(folder / "a.keras")
        >>> load_model(folder / "a.keras").count_params()
        10
        >>> (folder / "b.keras").touch()
        >>> load_model(folder / "b.keras")
        Traceback (most recent call last):
        ...
        keras_structsparse.errors.ModelError: ... Received an empty file.
    """
    found = model_contents.read(Path(path))
    try:
        model = _of_keras2(found, compile) if found.is_legacy else _of_keras3(found, compile)
    except Exception as error:  # Keras raises many types for damaged files
        raise ModelError(
            f"'{path}': {model_contents.EXPECTED}. This one, written by {found.writer}, cannot be "
            f"loaded: {_reason(found, error)}"
        ) from error
    if not isinstance(model, keras.Model):
        raise model_contents.refused(Path(path), f"a file that holds a {type(model).__name__}")
    return model


def _of_keras3(found: Contents, compile: bool) -> Any:
    if found.path.suffix == found.suffix:
        return keras.models.load_model(found.path, compile=compile, safe_mode=True)
    with tempfile.TemporaryDirectory(prefix="structsparse_") as folder:
        named = Path(folder, f"model{found.suffix}")  # Keras looks at the ending of the name.
        named.symlink_to(found.path.resolve())
        return keras.models.load_model(named, compile=compile, safe_mode=True)


def _of_keras2(found: Contents, compile: bool) -> Any:
    if compile:
        raise ModelError("compile=True: expected a file of Keras 3; load it with compile=False")
    if found.version.startswith("1."):
        raise ModelError("the configurations of Keras 1 differ too much; convert it with Keras 2")
    kinds = [str(node["class_name"]) for node in _layers(found.config)]
    if found.backend == "theano" and any("Conv" in kind for kind in kinds):
        raise ModelError("Theano flips the kernels of convolutions; convert it with Keras 2")
    config = keras2_configs.translated(found.config)
    model = keras.saving.deserialize_keras_object(config, safe_mode=True)
    if isinstance(model, keras.Model):
        keras2_weights.load(found, model)
    return model


def _reason(found: Contents, error: Exception) -> str:
    """Why a file does not load, and what to do."""
    strange = list(_strange(found.config))
    if strange:
        kinds = dict(strange)  # the last layer of each class
        first = list(kinds.items())[:3]
        named = ", ".join(f"'{name}' ({kind})" if name else kind for kind, name in first)
        what = " and ".join(dict.fromkeys(_GONE.get(kind, _UNKNOWN) for kind in kinds))
        bare = "" if found.is_legacy or found.suffix != ".h5" else _BARE
        return f"it has {what}: {named}. {_ADVICE}{bare}"
    text = " ".join(str(error).split()) or type(error).__name__
    short = text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]} …"
    return f"{short}. {_ADVICE}" if found.is_legacy else short


_ADVICE = (
    "Import or register what is missing before loading, or build the model in Keras 3 code and use "
    "its load_weights"
)

_BARE = "; Keras reads bare operations, such as x[:, 0], from .keras files only"


def _strange(config: Any) -> Iterator[tuple[str, str]]:
    """The classes of layers that are not known here, each with the name of a layer."""
    registered = {key.rpartition(">")[2] for key in keras.saving.get_custom_objects()}
    for node in _layers(config):
        kind, own = str(node["class_name"]), node["config"]
        if kind in _GONE or not (_is_of_keras(node) or kind in registered):
            yield kind, str(own.get("name", "")) if isinstance(own, Mapping) else ""


def _is_of_keras(node: Mapping[str, Any]) -> bool:
    if "module" in node:
        return str(node["module"]).partition(".")[0] == "keras"
    return keras2_configs.is_known(str(node["class_name"]))


def _layers(config: Any) -> Iterator[Mapping[str, Any]]:
    """The configurations of the model and of all its layers, wrapped ones too."""
    if isinstance(config, Mapping):
        own = config.get("config")
        named = isinstance(own, Mapping) and (not own or "name" in own or "layers" in own)
        if "class_name" in config and (named or isinstance(own, list)):
            yield config
        for name, value in config.items():
            if name not in ("compile_config", "build_config"):
                yield from _layers(value)
    elif isinstance(config, list):
        for value in config:
            yield from _layers(value)
