"""Files of models: written whole or not at all, read with clear errors, usable without us."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_export import images, network, same
from keras import layers as kl

from keras_structsparse.errors import OutputError
from keras_structsparse.export.clean_process import check_portable
from keras_structsparse.export.formats import EXPORTERS, export, load_model, save_model

# --- .keras files ---


def test_a_model_comes_back(tmp_path: Path) -> None:
    model = network()
    path = save_model(model, tmp_path / "new" / "model.keras")
    assert same(load_model(path), model)
    assert not same(load_model(path), network())
    assert os.listdir(path.parent) == ["model.keras"]


def test_compiled_or_not(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), kl.Dense(1)])
    model.compile("sgd", "mse")
    path = save_model(model, tmp_path / "model.keras")
    assert not load_model(path).compiled
    assert load_model(path, compile=True).compiled


@pytest.mark.parametrize("name", ["model", "model.h5", "model.keras.zip"])
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=rf"path: expected .*\.keras. Received: .*{name}"):
        save_model(network(), tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    path = save_model(model, tmp_path / "model.keras")

    def half(target: str) -> None:
        Path(target).write_bytes(b"half")
        raise RuntimeError("no more")

    other = network()
    monkeypatch.setattr(other, "save", half)
    with pytest.raises(RuntimeError, match="no more"):
        save_model(other, path)
    assert os.listdir(tmp_path) == ["model.keras"]
    assert same(load_model(path), model)


# --- SavedModel ---


def test_a_saved_model_runs_in_tensorflow_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tf = pytest.importorskip("tensorflow")
    model = network()
    path = export(model, tmp_path / "saved")
    assert capfd.readouterr().out == ""
    loaded = tf.saved_model.load(str(path))  # holds the variables
    served = loaded.serve(images())
    assert np.allclose(served["mean"], model(images())["mean"], atol=1e-6)
    assert os.listdir(tmp_path) == ["saved"]


def test_an_earlier_export_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    path = export(network(), tmp_path / "saved")
    (path / "variables" / "variables.index").unlink()  # of the earlier export
    export(network(), path)
    assert (path / "variables" / "variables.index").is_file()
    home = tmp_path / "home"
    home.mkdir()
    export(network(), home)  # empty: nothing is lost
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.tex").write_text("mine")
    for taken in (thesis, thesis / "chapter.tex"):
        with pytest.raises(OutputError, match="path: expected a new or empty directory"):
            export(network(), taken)
    assert (thesis / "chapter.tex").read_text() == "mine"


def test_a_file_of_the_name_licenses_nothing(tmp_path: Path) -> None:
    """Neither a stray saved_model.pb nor a model that another program wrote is removed."""
    pytest.importorskip("tensorflow")
    (tmp_path / "saved_model.pb").write_text("not a model")
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(OutputError, match=r"which holds 'saved_model\.pb'"):
        export(network(), tmp_path)
    foreign = tmp_path / "foreign"
    network().export(str(foreign), verbose=False)
    with pytest.raises(OutputError, match="foreign, which holds "):
        export(network(), foreign)
    assert (tmp_path / "thesis.tex").read_text() == "mine"
    assert (foreign / "saved_model.pb").is_file()


@pytest.mark.parametrize("name", ["notes.txt", "assets/notes.txt", ".hidden", "empty/"])
def test_what_a_user_added_to_an_export_is_not_removed(tmp_path: Path, name: str) -> None:
    pytest.importorskip("tensorflow")
    path = export(network(), tmp_path / "saved")
    added = path / name
    added.parent.mkdir(exist_ok=True)
    added.mkdir() if name.endswith("/") else added.write_text("mine")
    with pytest.raises(OutputError, match=f"which holds '{name.rstrip('/')}'"):
        export(network(), path)
    assert added.exists()


def test_an_unknown_format_lists_the_known_ones(tmp_path: Path) -> None:
    known = r"format: expected one of \['litert', 'onnx', 'saved_model'\].*'torchscript'"
    with pytest.raises(ValueError, match=known):
        export(network(), tmp_path / "saved", format="torchscript")


# --- LiteRT and ONNX ---

FILES = [name for name, exporter in EXPORTERS.items() if exporter.suffix]


def exported(model: keras.Model, folder: Path, format: str) -> Path:
    for module in EXPORTERS[format].needs:
        pytest.importorskip(module)
    return export(model, folder / f"model{EXPORTERS[format].suffix}", format)


@pytest.mark.parametrize("format", FILES)
def test_a_file_runs_by_itself(
    tmp_path: Path, format: str, capfd: pytest.CaptureFixture[str]
) -> None:
    model = network()
    path = exported(model, tmp_path, format)
    assert capfd.readouterr().out == ""
    assert check_portable(model, [path], images())[path] < 1e-5
    exported(other := network(), tmp_path, format)  # replaces it
    assert check_portable(model, [path], images())[path] > 0.1
    assert check_portable(other, [path], images())[path] < 1e-5
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("format", FILES)
@pytest.mark.parametrize("kind", [list, dict])
def test_files_of_models_of_several_inputs_and_outputs(
    tmp_path: Path, format: str, kind: type
) -> None:
    named = {"b": keras.Input((3,), name="b"), "a": keras.Input((3,), name="a")}
    rng = np.random.default_rng(0)
    given = {name: rng.normal(size=(2, 3)).astype("float32") for name in named}
    as_kind: Any = dict if kind is dict else lambda mapping: list(mapping.values())
    x = kl.Subtract()([kl.Dense(2)(named["a"]), kl.Dense(2)(named["b"])])
    outputs = {f"y_{i}": kl.Dense(2)(x) for i in range(12)}
    model = keras.Model(as_kind(named), as_kind(outputs))
    path = exported(model, tmp_path, format)
    assert check_portable(model, [path], as_kind(given))[path] < 1e-5


@pytest.mark.parametrize("format", FILES)
def test_other_endings_of_files_are_refused(tmp_path: Path, format: str) -> None:
    with pytest.raises(OutputError, match=rf"ends in {EXPORTERS[format].suffix}. Received: .*here"):
        export(network(), tmp_path / "here", format)
    assert os.listdir(tmp_path) == []


def test_a_missing_converter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "tf2onnx" else find(name)
    )
    with pytest.raises(RuntimeError, match=r"tf2onnx is not installed; .*\[onnx\]"):
        export(network(), tmp_path / "model.onnx", "onnx")
