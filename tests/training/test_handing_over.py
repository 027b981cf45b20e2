"""What is written of a shrunk network: card, figure, report and exports."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as kl

import keras_structsparse as kss
from keras_structsparse.errors import ModelError
from keras_structsparse.export.runtimes import Runtime
from keras_structsparse.profiling.latency import Latency
from keras_structsparse.training.shrink import handing_over, measured, report
from keras_structsparse.training.shrink.handing_over import check_modules, hand_over
from keras_structsparse.training.shrink.metrics import Judge
from keras_structsparse.training.shrink.result import ShrinkResult

EVIL = "<script>alert(1)</script>"


def network() -> keras.Model:
    inputs = keras.Input((8, 8, 1))
    x = kl.Conv2D(4, 3, name="conv")(inputs)
    x = kl.Dense(2, activation="softmax", name="head")(kl.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, x, name="little")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def shrunk(model: keras.Model, **changes: Any) -> ShrinkResult:
    """A result as if it had been trained."""
    plan = kss.Plan({"conv": (3, 0, 2, 0)})
    pruned = kss.prune(model, plan, realize="split")
    pruned.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    values: dict[str, Any] = {
        "model": pruned,
        "plan": plan,
        "comparison": kss.compare(model, pruned),
        "history": {"loss": [1.0, 0.5], "share": [0.7]},
        "before": {"loss": 0.4, "accuracy": 0.9},
        "after": {"loss": 0.5, "accuracy": 0.8},
        "judge": Judge("accuracy", True),
        "verification": None,
        "classes": ("cat", EVIL),
        "warnings": (f"careful {EVIL}",),
    }
    return ShrinkResult(**{**values, **changes})


def data() -> tuple[Any, Any]:
    return np.random.default_rng(0).random((16, 8, 8, 1), "float32"), np.arange(16) % 2


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(autouse=True)
def _few_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "REPEATS", 3)


def test_everything_is_written(tmp_path: Path) -> None:
    model = network()
    out = tmp_path / "out"
    written = hand_over(shrunk(model), model, out, (), data(), settings={"data": EVIL})
    assert {row.name: (row.before, row.after) for row in written.rows[2:3]} == {
        "validation accuracy": ("0.9000", "0.8000")
    }
    names = [row.name for row in written.rows]
    assert names[:2] == ["multiply-adds", "parameters"]
    assert {"test accuracy", "milliseconds for one example"} <= set(names)
    for name in ("model.keras", "plan.json", "labels.txt", "layers.png"):
        assert written.sizes[name] == (out / name).stat().st_size > 0
    card = (out / "card.md").read_text("utf-8")
    for part in ("test accuracy", "layers.png", "bytes", measured.machine(), "careful"):
        assert part in card
    assert card.count("| multiply-adds |") == 1


def test_the_report_is_one_file_and_escapes_texts(tmp_path: Path) -> None:
    model = network()
    hand_over(shrunk(model), model, tmp_path / "out", (), settings={"data": EVIL})
    text = (tmp_path / "out" / "report.html").read_text("utf-8")
    found = Page(text)
    assert "script" not in found.tags
    assert not {"img", "link", "iframe"} & set(found.tags)
    assert found.text.count(EVIL) == 3  # classes, warning, setting
    assert "svg" in found.tags
    for part in ("little, shrunk", "4 of 3×3", "0.9000", "2 of 3×3, 2×2"):
        assert part in found.text
    assert 'href="http' not in text.replace('xlink:href="http://purl.org', "")


@pytest.mark.parametrize("error", [ModelError("no such\noperation"), RuntimeError("not there")])
def test_an_export_that_fails_leaves_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(model: keras.Model, path: Path, format: str) -> None:
        raise error

    model, out = network(), tmp_path / "out"
    hand_over(shrunk(model), model, out, ())
    (out / "model.tflite").write_text("of an earlier call")
    monkeypatch.setattr(handing_over, "export", fail)
    written = hand_over(shrunk(model), model, out, ("litert",))
    assert written.failed == (f"model.tflite: {' '.join(str(error).split())}",)
    assert not (out / "model.tflite").exists()
    for name in ("card.md", "report.html"):
        assert written.failed[0] in (out / name).read_text("utf-8")


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="LiteRT needs TensorFlow")
@pytest.mark.parametrize("after", [1.5, 1.04, 0.5])
def test_a_network_that_is_slower_where_it_will_run_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: float
) -> None:
    def latency(self: Runtime, models: Any, repeats: int = 30) -> list[Latency]:
        times = dict(zip(models, (1.0, after), strict=True))
        return [Latency(name, 1, time, (time, time), repeats) for name, time in times.items()]

    monkeypatch.setattr(Runtime, "latency", latency)
    monkeypatch.setattr(handing_over, "export", lambda model, path, format: None)
    model, out = network(), tmp_path / "out"
    written = hand_over(shrunk(model), model, out, ("litert",))
    card = (out / "card.md").read_text("utf-8")
    assert f"| milliseconds for one example, litert on one thread | 1.000 | {after:.3f} |" in card
    said = f"litert on one thread: {after:.3f} after, 1.000 before. The network is not faster there"
    found = [text for text in written.doubts if "litert" in text]
    assert [said in text for text in found] == [True] * (after > 1.1)
    assert (said in card) is (after > 1.1)


def test_an_export_that_cannot_run_has_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def latency(self: Runtime, models: Any, repeats: int = 30) -> list[Latency]:
        raise ModelError("litert: expected other layers")

    monkeypatch.setattr(Runtime, "latency", latency)
    monkeypatch.setattr(handing_over, "export", lambda model, path, format: None)
    model = network()
    written = hand_over(shrunk(model), model, tmp_path / "out", ("litert", "onnx"))
    assert not any("litert" in row.name or "onnx" in row.name for row in written.rows)


def test_open_sizes_have_no_latency_unless_they_are_given(tmp_path: Path) -> None:
    inputs = keras.Input((None, None, 1))
    x = kl.GlobalAveragePooling2D()(kl.Conv2D(4, 3, name="conv")(inputs))
    model = keras.Model(inputs, kl.Dense(2, activation="softmax")(x))
    result = dataclasses.replace(shrunk(network()), model=model)
    for shape, there in ((None, False), ((8, 8, 1), True)):
        rows = measured.rows_of(result, model, None, shape)
        assert any("milliseconds" in row.name for row in rows) is there


def test_what_is_missing_is_said_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("report: expected jinja2")

    check_modules(())
    monkeypatch.setattr(handing_over, "template", missing)
    with pytest.raises(RuntimeError, match="expected jinja2"):
        check_modules(())


def test_a_page_without_epochs_has_an_empty_table() -> None:
    model = network()
    result = shrunk(model, history={}, classes=(), warnings=())
    text = report.page(result, (), kss_figure(result))
    assert "Classes" not in text


def kss_figure(result: ShrinkResult) -> Any:
    from keras_structsparse.plots import comparison_figure

    return comparison_figure(result.comparison)
