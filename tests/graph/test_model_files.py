"""Files of users: what loads, and what is named as what it is."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from helpers_keras2 import Config, as_old_archive, as_old_h5
from helpers_models import randomize
from keras import layers as kl
from keras import ops

from keras_structsparse.errors import ModelError
from keras_structsparse.graph.model_files.loading import load_model

rng = np.random.default_rng(0)


def plain() -> keras.Model:
    stack = [kl.Conv2D(4, 3), kl.BatchNormalization(), kl.LeakyReLU(0.2), kl.Dropout(0.5)]
    return keras.Sequential([keras.Input((8, 8, 2)), *stack, kl.Flatten(), kl.Dense(3)])


def mobile() -> keras.Model:
    x = i = keras.Input((8, 8, 3))
    for strides in (1, 2):
        x = kl.Conv2D(6, 1, padding="same", use_bias=False)(x)
        x = kl.DepthwiseConv2D(3, strides, padding="same", activation="relu")(x)
    x = kl.Conv2DTranspose(4, 3, strides=2, padding="same")(kl.SeparableConv2D(5, 3)(x))
    return keras.Model(i, kl.Add()([x, kl.Conv2D(4, 1)(x)]))


def nested() -> keras.Model:
    i = keras.Input((6,))
    inner = keras.Sequential([keras.Input((6,)), kl.Dense(4), kl.Dense(6, "tanh")])
    k = keras.Input((6,))
    second = keras.Model(k, kl.Dense(5)(k))
    return keras.Model(i, second(inner(i)))


def recurrent() -> keras.Model:
    i, j = keras.Input((5,), dtype="int32"), keras.Input((7, 3))
    x = kl.Embedding(11, 4)(i)
    x, *states = kl.LSTM(4, return_state=True)(x)
    y = kl.LSTM(4, return_sequences=True)(j, initial_state=states)
    y = kl.Bidirectional(kl.GRU(3, return_sequences=True, reset_after=False))(y)
    return keras.Model([i, j], [kl.TimeDistributed(kl.Dense(2))(y), x])


def batch(model: keras.Model) -> Any:
    inputs = [
        rng.integers(0, 10, (3, *t.shape[1:])).astype("int32")
        if t.dtype == "int32"
        else rng.normal(size=(3, *t.shape[1:])).astype("float32")
        for t in model.inputs
    ]
    return inputs if len(inputs) > 1 else inputs[0]


def same(left: keras.Model, right: keras.Model) -> bool:
    x = batch(left)
    sides = [keras.tree.flatten(m(x, training=False)) for m in (left, right)]
    pairs = [[ops.convert_to_numpy(t) for t in pair] for pair in zip(*sides, strict=True)]
    return all(np.allclose(a, b, atol=1e-5) for a, b in pairs)


@pytest.mark.parametrize(
    ("make", "name"),
    [(plain, "m.h5"), (mobile, "m.keras"), (nested, "model"), (recurrent, "m.hdf5")],
)
def test_legacy_h5_files_of_keras_2(tmp_path: Path, make: Any, name: str) -> None:
    model = randomize(make(), 1)
    loaded = load_model(as_old_h5(model, tmp_path / name))
    assert same(loaded, model)
    assert not same(loaded, randomize(make(), 2))
    assert not loaded.compiled


@pytest.mark.parametrize(
    ("make", "twice", "separator"),
    [(plain, True, "/"), (mobile, True, "/"), (nested, True, "\\"), (recurrent, False, "\\")],
)
def test_archives_of_keras_2(tmp_path: Path, make: Any, twice: bool, separator: str) -> None:
    model = randomize(make(), 1)
    loaded = load_model(as_old_archive(model, tmp_path / "model.keras", twice, separator))
    assert same(loaded, model)
    assert not same(loaded, randomize(make(), 2))


def listed(config: Config) -> Config:
    return {"class_name": "Sequential", "config": config["config"]["layers"]}


def renamed(old: str, new: str) -> Callable[[Config], Config]:
    return lambda config: dict(json.loads(json.dumps(config).replace(f'"{old}"', f'"{new}"')))


def with_policies(config: Config) -> Config:
    policy = {"class_name": "Policy", "config": {"name": "float32"}}
    for layer in config["config"]["layers"]:
        layer["config"]["dtype"] = policy
    return config


@pytest.mark.parametrize(
    "change",
    [
        listed,
        with_policies,
        renamed("Conv2D", "Convolution2D"),
        renamed("BatchNormalization", "BatchNormalizationV1"),
    ],
)
def test_old_forms_of_a_configuration(tmp_path: Path, change: Any) -> None:
    model = randomize(plain(), 1)
    for version in ("2.0.8", "2.3.0-tf"):
        assert same(load_model(as_old_h5(model, tmp_path / "m.h5", version, change)), model)


def test_node_numbers_that_count_the_graph_of_a_nested_model(tmp_path: Path) -> None:
    def shifted(config: Config) -> Config:
        text = json.dumps(config)
        for layer in config["config"]["layers"]:
            name = layer["name"] if layer["class_name"] in ("Sequential", "Model") else "-"
            text = text.replace(f'["{name}", 0, 0', f'["{name}", 1, 0')
        return dict(json.loads(text))

    model = randomize(nested(), 1)
    assert same(load_model(as_old_h5(model, tmp_path / "m.h5", change=shifted)), model)


@pytest.mark.parametrize("kind", [kl.LSTM, kl.GRU])
def test_the_hard_sigmoid_of_keras_2(tmp_path: Path, kind: Any) -> None:
    """It is steeper than that of Keras 3, which loads such files without a word."""

    def network(activation: Any) -> keras.Model:
        layers = [kind(4, recurrent_activation=activation, return_sequences=True), kl.Dense(2)]
        return randomize(keras.Sequential([keras.Input((9, 3)), *layers]), 1)

    loaded = load_model(as_old_h5(network("hard_sigmoid"), tmp_path / "m.h5"))
    assert same(loaded, network(lambda x: ops.clip(0.2 * x + 0.5, 0, 1)))
    assert not same(loaded, network("hard_sigmoid"))


def test_the_hard_sigmoid_elsewhere_is_refused(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), kl.Dense(2, "hard_sigmoid", name="d")])
    with pytest.raises(ModelError, match=r"layer 'd' \(Dense\): its activation hard_sigmoid"):
        load_model(as_old_h5(model, tmp_path / "m.h5"))


def test_a_gru_without_reset_after_is_the_old_one(tmp_path: Path) -> None:
    def older(config: Config) -> Config:
        for layer in config["config"]["layers"]:
            layer["config"].pop("reset_after", None)
        return config

    layer = kl.GRU(4, reset_after=False)
    model = randomize(keras.Sequential([keras.Input((9, 3)), layer, kl.Dense(2)]), 1)
    assert same(load_model(as_old_h5(model, tmp_path / "m.h5", "2.0.5", older)), model)


def test_an_operation_in_an_h5_file_of_keras_3_is_named(tmp_path: Path) -> None:
    i = keras.Input((4,))
    keras.Model(i, i[:, :2]).save(tmp_path / "m.h5")
    with pytest.raises(ModelError, match=r"\(GetItem\).* bare operations, .* from \.keras files"):
        load_model(tmp_path / "m.h5")


def test_models_of_keras_3_under_any_name(tmp_path: Path) -> None:
    model = randomize(nested(), 1)
    for written, name in (("a.keras", "a.h5"), ("b.h5", "b.keras"), ("c.h5", "c.hdf5")):
        if written != name:
            model.save(tmp_path / written)
        os.rename(tmp_path / written, tmp_path / name)
        assert same(load_model(tmp_path / name), model)


# --- what does not load ---


def write_zip(path: Path, **files: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("_", "."), text)


def cut_short(path: Path) -> None:
    plain().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def damaged(path: Path) -> None:
    plain().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + b"\0" * 200 + whole[300:])


def cut_h5(path: Path) -> None:
    plain().save(path.with_suffix(".h5"))
    whole = path.with_suffix(".h5").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def weights_alone(path: Path) -> None:
    plain().save_weights(path.with_suffix(".weights.h5"))
    path.with_suffix(".weights.h5").rename(path)


def old_weights_alone(path: Path) -> None:
    plain().save(path.with_suffix(".h5"))
    with h5py.File(path.with_suffix(".h5"), "r+") as file:
        del file.attrs["model_config"]
    path.with_suffix(".h5").rename(path)


def saved_model(path: Path) -> None:
    path.mkdir()
    (path / "saved_model.pb").touch()


def annexed(path: Path) -> None:
    path.symlink_to("../.git/annex/objects/a/b/c.keras")


OTHERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "nothing": (lambda path: None, "there is no such file"),
    "folder": (lambda path: path.mkdir(), "a directory"),
    "saved model": (saved_model, "TensorFlow SavedModel"),
    "empty": (lambda path: path.touch(), "an empty file"),
    "text": (lambda path: path.write_text("hello"), "neither a zip archive nor HDF5"),
    "LFS": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1"),
        "a Git LFS pointer",
    ),
    "annex": (lambda path: path.write_text("/annex/objects/x"), "a git-annex pointer"),
    "annex link": (annexed, "`git annex get`"),
    "page": (lambda path: path.write_text("\n<!DOCTYPE html>"), "a web page"),
    "JSON": (lambda path: path.write_text('{"class_name": 1}'), "JSON text, without weights"),
    "LiteRT": (lambda path: path.write_bytes(b"\x1c\0\0\0TFL3"), "LiteRT"),
    "pickle": (lambda path: path.write_bytes(b"\x80\x04abc"), "a pickle"),
    "archive": (lambda path: write_zip(path, readme_txt="x"), "not of Keras: it holds readme.txt"),
    "no JSON": (lambda path: write_zip(path, config_json="x"), "is not JSON"),
    "no config": (lambda path: write_zip(path, config_json="[1]"), "is not that of a Keras model"),
    "cut short": (cut_short, "a damaged or incomplete zip archive"),
    "damaged": (damaged, "damaged"),
    "cut HDF5": (cut_h5, "a damaged or incomplete HDF5 file"),
    "weights": (weights_alone, "weights without a model"),
    "old weights": (old_weights_alone, "without the configuration of a model"),
}


def assert_refused(path: Path, message: str, expected: str) -> None:
    """A file is refused in one line, which matches a pattern and holds a text."""
    with pytest.raises(ModelError, match=message) as info:
        load_model(path)
    assert expected in str(info.value)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("kind", OTHERS)
def test_other_files_are_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.keras"
    write, expected = OTHERS[kind]
    write(path)
    assert_refused(path, r"model\.keras': expected a \.keras or \.h5 file", expected)


def with_lambda(path: Path) -> None:
    keras.Sequential([keras.Input((3,)), kl.Lambda(lambda x: x + 1, name="plus")]).save(path)


class Strange(keras.layers.Layer):
    """A layer that is not registered."""

    def call(self, x: Any) -> Any:
        return x


def strange(path: Path) -> None:
    keras.Sequential([keras.Input((3,)), Strange(name="odd")]).save(path)


class Subclass(keras.Model):
    """A model without a graph, whose configuration is empty."""

    def call(self, x: Any) -> Any:
        return x

    def get_config(self) -> dict[str, Any]:
        return {}


def subclass(path: Path) -> None:
    model = Subclass()
    model(np.zeros((1, 2)))
    model.save(path)


def old(change: Callable[[Config], Config], **options: Any) -> Callable[[Path], Any]:
    return lambda path: as_old_h5(plain(), path, change=change, **options)


def old_recurrent(path: Path) -> None:
    stack = [kl.LSTM(2, name="l"), kl.Dense(1)]

    def major(config: Config) -> Config:
        config["config"]["layers"][0]["config"]["time_major"] = True
        return config

    as_old_h5(keras.Sequential([keras.Input((3, 2)), *stack]), path, change=major)


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "Lambda": (with_lambda, "'plus' (Lambda)"),
    "custom": (strange, "'odd' (Strange)"),
    "nameless": (subclass, "not registered here: Subclass. Import"),
    "old Lambda": (old(renamed("Dropout", "Lambda")), "written by Keras 2.4.0"),
    "operation": (old(renamed("Dropout", "TFOpLambda")), "a TensorFlow operation that Keras 2"),
    "CuDNN": (old(renamed("Dropout", "CuDNNLSTM")), "that Keras 3 does not have"),
    "Keras 1": (old(lambda config: config, version="1.2.2"), "Keras 1"),
    "Theano": (old(lambda config: config, backend="theano"), "Theano flips"),
    "time_major": (old_recurrent, "layer 'l' (LSTM): time_major=True"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_load_is_named_with_its_keras(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.keras"
    write, expected = REFUSED[kind]
    write(path)
    assert_refused(path, r"written by Keras [123]\.", expected)


def test_a_registered_function_in_a_lambda_layer_loads(tmp_path: Path) -> None:
    keras.Sequential([keras.Input((3,)), kl.Lambda(ops.relu)]).save(tmp_path / "m.keras")
    assert load_model(tmp_path / "m.keras").output_shape == (None, 3)
