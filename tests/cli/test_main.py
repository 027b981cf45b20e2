"""The command line on files: what it writes, what it says, and what it refuses."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as kl
from typer.testing import CliRunner, Result

from keras_structsparse.cli import app, errors, progress
from keras_structsparse.cli import main as commands
from keras_structsparse.errors import ModelError
from keras_structsparse.export.formats import load_model
from keras_structsparse.graph.channels.costs import Costs
from keras_structsparse.profiling import calibration
from keras_structsparse.profiling.calibration import Calibration
from keras_structsparse.regularizers import KernelCount, MultiplyAdds
from keras_structsparse.regularizers.attachment import attach, regularizers_of
from keras_structsparse.surgery.plans import Plan, masked
from keras_structsparse.training.recipes import Recipe

Run = Callable[..., Result]

TARGET = "--target-multiply-adds"
TRAIN = ("train", "--dataset", "digits", "--epochs", "1", "--batch-size", "512")


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("data"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder: Path, data_dir: str) -> Run:
    def invoke(*words: str, **env: str) -> Result:
        extra = ("--data-dir", data_dir) if words[:1] == ("train",) else ()
        return CliRunner(env={"COLUMNS": "100", **env}).invoke(app, [*words, *extra])

    return invoke


def network(shape: tuple[int | None, ...] = (8, 8, 1), **last: Any) -> keras.Model:
    last = {"units": 10, "activation": "softmax", **last}
    inputs = keras.Input(shape)
    x = kl.Conv2D(6, 5, padding="same", use_bias=False, name="conv1")(inputs)
    x = kl.ReLU()(kl.BatchNormalization(name="norm1")(x))
    x = kl.Conv2D(4, 3, activation="relu", padding="same", name="conv2")(x)
    return keras.Model(inputs, kl.Dense(**last, name="classes")(kl.GlobalMaxPooling2D()(x)))


def stored(model: keras.Model, name: str = "model.keras") -> str:
    model.save(name)
    return name


def stored_plan(sizes: dict[str, list[int]], name: str = "plan.json") -> str:
    Path(name).write_text(Plan(sizes).to_json(), encoding="utf-8")
    return name


def assert_refused(result: Result, *words: str, absent: tuple[str, ...] = ("out.keras",)) -> None:
    """Status 2, one line on stderr that holds the words, and nothing written."""
    assert result.exit_code == 2, (result.output, result.exception)
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    left = [path for path in os.listdir() if path in absent or path.startswith(".")]
    assert left == []


def assert_done(result: Result) -> str:
    assert result.exit_code == 0, (result.output, result.exception)
    assert result.stderr == ""
    return result.stdout


# --- the whole way ---


def examples(command: str) -> list[list[str]]:
    """The words of the examples that --help shows on a narrow terminal, as a shell reads them."""
    shown = assert_done(CliRunner(env={"COLUMNS": "80"}).invoke(app, [command, "--help"]))
    lines = [line.strip() for line in shown.rpartition("Example")[2].splitlines()[1:]]
    pasted = "\n".join(lines).replace("\\\n", " ").strip().splitlines()
    found = [shlex.split(line) for line in pasted if line]
    assert all(words[:2] == ["structsparse", command] for words in found)
    return [words[1:] for words in found]


def example(command: str) -> list[str]:
    """The words of the first example."""
    return examples(command)[0]


def test_the_examples_of_the_help_run_one_after_the_other(run: Run) -> None:
    said = assert_done(run(*example("train"), "--epochs", "1"))  # only the length is cut
    lines = said.splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 1
    for word in ("validation accuracy 0.", "test accuracy 0.", "penalty ", "conv7", "saved"):
        assert word in said
    trained = load_model("trained.keras")
    assert len(regularizers_of(trained)) == 7

    said = assert_done(run(*example("prune")))
    assert "equal (relative difference" in said
    pruned = load_model("pruned.keras")
    assert not regularizers_of(pruned)
    plan = Plan.from_json(Path("plan.json").read_text())
    images = np.random.default_rng(0).random((4, 8, 8, 1), "float32")
    np.testing.assert_allclose(pruned(images), masked(trained, plan)(images), atol=1e-5)

    said = assert_done(run(*example("export")))
    (found,) = re.findall(r"difference, run without this package: (\S+)", said)
    assert 0 <= float(found) < 1e-5
    assert Path("saved_model/saved_model.pb").is_file()
    assert f"{sum(f.stat().st_size for f in Path('saved_model').rglob('*.*')):,} bytes" in said

    assert "total" in assert_done(run(*example("profile")))
    assert "digits-plain" in assert_done(run(*example("models")))
    compared = json.loads(
        assert_done(run("profile", "trained.keras", "--compare", "pruned.keras", "--json"))
    )
    assert compared["multiply_adds"][0] == 1_254_560
    assert compared["multiply_adds"][1] <= compared["multiply_adds"][0]


@pytest.mark.slow
def test_the_example_with_a_target_reaches_it(run: Run) -> None:
    (_, words) = examples("train")
    said = assert_done(run(*words, "--epochs", "2"))
    (wanted, reached) = re.findall(r"multiply-adds: (\S+)% wanted, (\S+)% reached", said)[0]
    assert float(wanted) == 40.0
    assert abs(float(reached) - 40.0) <= 2.0
    assert len(re.findall(r"(?m)^epoch .*  multiply-adds \d+\.\d%$", said)) == 2
    assert_done(run(*example("prune"), "--no-verify"))
    compared = json.loads(
        assert_done(run("profile", "trained.keras", "--compare", "pruned.keras", "--json"))
    )
    whole, left = compared["multiply_adds"]
    assert left / whole == pytest.approx(float(reached) / 100, abs=1e-3)


@pytest.mark.parametrize("target", ["0", "-0.4", "1.5", "nan", "inf", "many"])
def test_a_target_that_is_no_share_is_refused(run: Run, target: str) -> None:
    result = run(*TRAIN, "--model", "digits-plain", "--out", "out.keras", TARGET, target)
    assert_refused(result, TARGET, "expected a", "Received: ", target)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--alpha", "0.1"), "expected --alpha or --target-multiply-adds. Received both"),
        (("--regularizer", "none"), "expected a --regularizer"),
    ],
)
def test_a_target_goes_with_a_penalty_and_without_an_alpha(
    run: Run, words: tuple[str, ...], complaint: str
) -> None:
    model = ("--model", "digits-plain", "--out", "out.keras")
    assert_refused(run(*TRAIN, *model, TARGET, "0.4", *words), complaint)


def test_a_trained_model_goes_on_without_its_penalty(run: Run) -> None:
    model = attach(network(), KernelCount(1.0))
    stored(model)
    said = assert_done(
        run(*TRAIN, "--model", "model.keras", "--regularizer", "none", "--out", "out.keras")
    )
    assert "penalty" not in said
    trained = load_model("out.keras")
    assert not regularizers_of(trained)
    assert not np.allclose(trained.get_layer("conv1").kernel, model.get_layer("conv1").kernel)


def test_the_options_reach_the_regularizer(run: Run) -> None:
    stored(network())
    given = ("--alpha", "0.5", "--norm", "linf", "--weights", "params", "--groups", "ring")
    assert_done(run(*TRAIN, "--model", "model.keras", "--out", "out.keras", *given))
    first, second = regularizers_of(load_model("out.keras")).values()
    assert float(first.alpha) == 0.5
    assert (first.norm, first.groups) == ("linf", "ring")
    assert first.weight < second.weight


def test_the_form_of_the_penalty_reaches_the_regularizer(run: Run) -> None:
    train = (*TRAIN, "--model", "digits-residual", "--epochs", "1", "--out", "out.keras")
    assert_done(run(*train, "--reweight", "0.1", "--coupled"))
    found = regularizers_of(load_model("out.keras")).values()
    assert {regularizer.reweight for regularizer in found} == {0.1}
    assert any(regularizer.links for regularizer in found)
    assert_done(run(*train, "--force", "--reweight", "0.1"))
    found = regularizers_of(load_model("out.keras")).values()
    assert not any(regularizer.links for regularizer in found)


def test_multiply_adds_are_a_penalty_with_an_alpha_of_their_own(run: Run) -> None:
    stored(network())
    words = (*TRAIN, "--model", "model.keras", "--regularizer", "multiply-adds")
    assert_done(run(*words, "--out", "out.keras", "--reweight", "0.1"))
    found = list(regularizers_of(load_model("out.keras")).values())
    assert {type(regularizer) for regularizer in found} == {MultiplyAdds}
    assert {regularizer.reweight for regularizer in found} == {0.1}
    assert float(found[0].alpha) == pytest.approx(1e-9)


def test_no_penalty_cannot_be_reweighted(run: Run) -> None:
    words = (*TRAIN, "--model", "digits-residual", "--out", "out.keras", "--regularizer", "none")
    assert_refused(run(*words, "--reweight", "0.1"), "reweight: expected 0", "0.1 with 'none'")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_model(run: Run) -> None:
    stored(network())
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        words = (*TRAIN, "--model", "model.keras", "--out", f"{name}.keras", "--seed", seed)
        assert_done(run(*words, "--regularizer", "none"))
    a, b, c = (
        keras.ops.convert_to_numpy(load_model(f"{x}.keras").get_layer("conv1").kernel)
        for x in "abc"
    )
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, c)


def test_force_replaces_and_nothing_else_does(run: Run) -> None:
    stored(network())
    plan = stored_plan({"conv1": [5, 0, 0, 0, 0, 0]})
    before = Path("model.keras").read_bytes()
    words = ("prune", "model.keras", "--plan", plan, "--out", "model.keras")
    assert_refused(run(*words), "--out", "exists", "--force")
    assert Path("model.keras").read_bytes() == before
    assert_done(run(*words, "--force"))
    assert load_model("model.keras").get_layer("conv1").filters == 1


def test_a_comparison_can_be_drawn(run: Run) -> None:
    stored(network())
    words = ("profile", "model.keras", "--compare", "model.keras", "--figure")
    assert_refused(run(*words, "drawn.pdf"), ".png or .svg", "drawn.pdf")
    refused = run("profile", "model.keras", "--figure", "drawn.png")
    assert_refused(refused, "expected --compare with --figure")
    assert "wrote drawn.png" in assert_done(run(*words, "drawn.png"))
    assert Path("drawn.png").read_bytes().startswith(b"\x89PNG")


def test_constants_and_realize_reach_the_surgery(run: Run) -> None:
    model = network()
    model.get_layer("norm1").beta.assign(np.ones(6))
    stored(model)
    plan = stored_plan({"conv1": [5, 5, 3, 0, 0, 0]})
    words = ("prune", "model.keras", "--plan", plan, "--constants", "drop")
    said = assert_done(run(*words, "--realize", "split", "--out", "split.keras"))
    assert "not verified: --constants drop" in said
    convolutions = [
        x for x in load_model("split.keras").layers if type(x) is kl.Conv2D and x.name != "conv2"
    ]
    assert [x.kernel_size[0] for x in convolutions] == [3, 5]
    assert_refused(run(*words, "--verify", "--out", "out.keras"), "NOT equal", "--no-verify")
    assert_done(run(*words, "--no-verify", "--out", "out.keras"))


def test_profile_of_an_open_model(run: Run) -> None:
    stored(network((None, None, 1)))
    assert_refused(run("profile", "model.keras"), "conv1", "input_shape")
    content = json.loads(
        assert_done(run("profile", "model.keras", "--input-shape", "4, 2,1", "--json"))
    )
    assert content["multiply_adds"] == 8 * (6 * 25 + 6 * 4 * 9) + 40
    assert "4x2x6" in assert_done(run("profile", "model.keras", "--input-shape", "4,2,1"))
    assert "32x32x16" in assert_done(run("profile", "digits-plain", "--input-shape", "32,32,3"))


def test_quickstart_is_called(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("keras_structsparse.cli.quickstart")
    calls: list[Any] = []
    monkeypatch.setattr(module, "run", lambda *args: calls.append(args))
    assert_done(run("quickstart", "--out", "there", "--seed", "3"))
    ((out, seed, _),) = calls
    assert (out, seed) == (Path("there"), 3)


# --- what is refused ---


def test_calibrate_is_called(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Calibration(Costs(3.0, 5e4), 0.1, 0.25, 1, "none", 7)
    monkeypatch.setattr(calibration, "calibrate", lambda batch_size, repeats: found)
    said = assert_done(run(*example("calibrate")))
    assert "25 %" in said
    assert Costs.from_json(Path("costs.json").read_text()) == found.costs
    assert_refused(run(*example("calibrate")), "costs.json", "--force")


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "much"])
@pytest.mark.parametrize("option", ["--alpha", "--tau"])
def test_bad_numbers_are_refused_before_anything_is_read(run: Run, option: str, value: str) -> None:
    words = ("prune", "no.keras") if option == "--tau" else (*TRAIN, "--model", "no.keras")
    assert_refused(run(*words, "--out", "out.keras", option, value), f"'{option}'", value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--regularizer", "lasso"),
        ("--norm", "l3"),
        ("--groups", "square"),
        ("--weights", "equal"),
        ("--seed", "-1"),
        ("--seed", "4294967296"),
        ("--epochs", "many"),
        ("--epochs", "0"),
        ("--batch-size", "0"),
        ("--learning-rate", "nan"),
        ("--momentum", "1"),
        ("--ramp", "-0.5"),
        ("--weight-decay", "1"),
        ("--model", "lenet"),
        ("--model", "no.keras"),
        ("--model", "folder/lenet"),
        ("--dataset", "digit"),
        ("--colour", "red"),
    ],
)
def test_bad_options_of_train_are_named(run: Run, option: str, value: str) -> None:
    words = (*TRAIN, "--model", "digits-plain", "--out", "out.keras", option, value)
    name = option if option == "--colour" else option.strip("-").replace("-", "_")[:5]
    received = "" if option == "--colour" else value
    assert_refused(run(*words), name if name != "model" else "expected", received)


@pytest.mark.parametrize("value", ["8,8", "8,8,x", "8,0,1", ""])
def test_bad_input_shapes(run: Run, value: str) -> None:
    received = value.replace(",", ", ") if value == "8,8" else value
    assert_refused(run("profile", "digits-plain", "--input-shape", value), "input", received)


def test_a_missing_option_and_a_wrong_command(run: Run) -> None:
    assert_refused(run("prune", "model.keras"), "--out")
    assert_refused(run("prunes"), "prunes")
    assert_refused(run("--prune"), "--prune")


@pytest.mark.parametrize("command", ["prune", "train", "export", "profile"])
@pytest.mark.parametrize("content", [b"no archive", b"PK\x05\x06" + bytes(18), None])
def test_files_that_are_no_models(run: Run, command: str, content: bytes | None) -> None:
    if content is not None:
        Path("model.keras").write_bytes(content)
    words = {
        "prune": ("prune", "model.keras", "--out", "out.keras"),
        "train": (*TRAIN, "--model", "model.keras", "--out", "out.keras"),
        "export": ("export", "model.keras", "--out", "out"),
        "profile": ("profile", "model.keras"),
    }[command]
    assert_refused(run(*words), "model.keras", "expected", absent=("out.keras", "out"))


@keras.saving.register_keras_serializable("test_cli")
class Subclassed(keras.Model):
    """A model without a graph."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conv = kl.Conv2D(2, 3)

    def call(self, x: Any) -> Any:
        return self.conv(x)


def test_a_subclassed_model(run: Run) -> None:
    model = Subclassed(name="mine")
    model(np.zeros((1, 8, 8, 1)))
    stored(model)
    assert_refused(run("prune", "model.keras", "--out", "out.keras"), "mine", "subclass")
    assert_refused(run(*TRAIN, "--model", "model.keras", "--out", "out.keras"), "mine")


def test_a_model_without_convolutions(run: Run) -> None:
    inputs = keras.Input((8, 8, 1))
    outputs = kl.Dense(10, activation="softmax")(kl.Flatten()(inputs))
    stored(keras.Model(inputs, outputs, name="flat"))
    for words in (("prune", "model.keras"), (*TRAIN, "--model", "model.keras")):
        assert_refused(run(*words, "--out", "out.keras"), "'flat'", "no convolutions", "Conv2D")


@pytest.mark.parametrize(
    ("shape", "last", "words"),
    [
        ((28, 28, 1), {}, ["(8, 8, 1)", "(28, 28, 1)", "digits"]),
        ((8, 8, 3), {}, ["(8, 8, 1)", "(8, 8, 3)"]),
        ((8, 8, 1), {"units": 3}, ["(10,)", "(3,)", "classes"]),
        ((8, 8, 1), {"activation": None}, ["probabilities", "softmax"]),
    ],
)
def test_a_model_that_does_not_fit_the_data(
    run: Run, shape: tuple[int, ...], last: dict[str, Any], words: list[str]
) -> None:
    stored(network(shape, **last))
    result = run(*TRAIN, "--model", "model.keras", "--out", "out.keras")
    assert_refused(result, "--model model.keras: expected", "Received", *words)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"conv9": [5]}, ["'conv9'", "another model"]),
        ({"conv1": [5]}, ["'conv1'", "6 kernels", "1 sizes"]),
        ({"conv1": [7] * 6}, ["'conv1'", "size 5", "size 7"]),
    ],
)
def test_a_plan_for_another_model(run: Run, sizes: dict[str, list[int]], words: list[str]) -> None:
    stored(network())
    plan = stored_plan(sizes)
    result = run(
        "prune", "model.keras", "--plan", plan, "--out", "out.keras", "--save-plan", "new.json"
    )
    assert_refused(result, *words, absent=("out.keras", "new.json"))


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"format": "x"}', b"\xff\xfe", None])
def test_a_file_that_is_no_plan(run: Run, text: bytes | None) -> None:
    stored(network())
    if text is not None:
        Path("plan.json").write_bytes(text)
    result = run("prune", "model.keras", "--plan", "plan.json", "--out", "out.keras")
    assert_refused(result, "lan", "expected")


@pytest.mark.parametrize("option", ["--verify", "--no-verify"])
def test_a_plan_that_removes_every_kernel(run: Run, option: str) -> None:
    stored(network())
    plan = stored_plan({"conv1": [0] * 6, "conv2": [0] * 4})
    words = ("prune", "model.keras", "--plan", plan, "--out", "out.keras", option)
    assert_refused(run(*words), "no output depends on the input", "'conv1'")


def test_a_tau_that_removes_every_kernel(run: Run) -> None:
    stored(network())
    assert_refused(run("prune", "model.keras", "--tau", "1e6", "--out", "out.keras"), "'conv1'")


def test_tau_and_plan_together(run: Run) -> None:
    words = ("prune", "no.keras", "--tau", "0", "--plan", "plan.json", "--out", "out.keras")
    assert_refused(run(*words), "--tau", "--plan", "both")


@pytest.mark.parametrize("command", ["prune", "train"])
@pytest.mark.parametrize("out", ["out.h5", "out", "a.keras", "d.keras", "a.keras/out.keras"])
def test_outputs_are_checked_first(run: Run, command: str, out: str) -> None:
    Path("a.keras").write_text("here before")
    Path("d.keras").mkdir()
    words = (*TRAIN, "--model", "no.keras") if command == "train" else ("prune", "no.keras")
    assert_refused(run(*words, "--out", out), "--out: expected", out, absent=("out.h5", "out"))
    assert Path("a.keras").read_text() == "here before"


def test_the_place_of_the_plan_is_checked_first(run: Run) -> None:
    words = ("prune", "no.keras", "--out", "out.keras", "--save-plan")
    assert_refused(run(*words, "plan.txt"), "--save-plan", ".json", "plan.txt")


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_export_never_replaces_what_is_none(run: Run, force: tuple[str, ...]) -> None:
    Path("out").mkdir()
    Path("out", "thesis.tex").write_text("years of work")
    result = run("export", "no.keras", "--out", "out", *force)
    assert_refused(result, "--out: expected", "thesis.tex")
    assert os.listdir("out") == ["thesis.tex"]
    assert_refused(run("export", "no.keras", "--out", "out/thesis.tex", *force), "a file")


def test_a_forced_export_replaces_an_export_and_nothing_else(run: Run) -> None:
    stored(network())
    words = ("export", "model.keras", "--out", "out", "--no-fold")
    assert_done(run(*words))
    assert_refused(run(*words), "--out: expected", "--force replaces it")
    assert_done(run(*words, "--force"))
    Path("out", "notes.txt").write_text("years of work")
    assert_refused(run(*words, "--force"), "--out: expected", "which holds 'notes.txt'")
    assert Path("out", "notes.txt").read_text() == "years of work"


def test_an_export_that_differs_is_not_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(network())
    monkeypatch.setattr(
        "keras_structsparse.export.clean_process.check_portable",
        lambda m, paths, x, fronts: {paths[0]: float("nan")},
    )
    result = run("export", "model.keras", "--out", "out")
    assert_refused(result, "nan", "nothing is written", absent=("out",))


def test_training_that_diverges_writes_nothing(run: Run) -> None:
    stored(network())
    words = (*TRAIN, "--model", "model.keras", "--out", "out.keras", "--learning-rate", "1e30")
    assert_refused(
        run(*words, "--regularizer", "none"), "expected a finite loss and finite weights", "NaN"
    )


# --- errors ---


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Make `profile` run something else."""

    def use(action: Callable[[], Any]) -> None:
        command = importlib.import_module("keras_structsparse.cli.profile")
        monkeypatch.setattr(command, "costs", lambda *args: action())

    return use


def test_mistakes_keep_their_traceback(run: Run, fails: Callable[..., None]) -> None:
    fails(lambda: int("a mistake of ours"))
    result = run("profile", "digits-plain")
    assert isinstance(result.exception, ValueError)
    assert result.exit_code == 1


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_the_traceback_on_demand(run: Run, how: str) -> None:
    words = ["profile", "no.keras"]
    env = {"STRUCTSPARSE_TRACEBACK": "1"} if how == "environment" else {}
    result = run(*([] if env else ["--traceback"]), *words, **env)
    assert result.exit_code == 2
    assert result.stderr.startswith("Traceback")
    assert result.stderr.splitlines()[-1].startswith("error: 'no.keras': expected")


def test_a_message_of_many_lines_is_one(run: Run, fails: Callable[..., None]) -> None:
    def action() -> None:
        raise ModelError("first\n  second")

    fails(action)
    assert run("profile", "digits-plain").stderr == "error: first second\n"


def test_which_errors_are_expected() -> None:
    def caught(action: Callable[[], Any]) -> Exception:
        with pytest.raises(Exception) as info:  # noqa: PT011  (any: its kind is what is tested)
            action()
        return info.value

    assert errors.is_expected(caught(lambda: Recipe(epochs=0)))
    assert errors.is_expected(caught(lambda: os.stat("/no/such/file")))
    assert not errors.is_expected(caught(lambda: keras.layers.Dense(-1)))
    assert errors.is_expected(caught(lambda: Recipe(ramp="1")))  # type: ignore[arg-type]
    assert not errors.is_expected(caught(lambda: Recipe().steps("1")))  # type: ignore[arg-type]
    assert errors.is_expected(caught(lambda: np.empty(2**50)))
    assert not errors.is_expected(BrokenPipeError())
    assert not errors.is_expected(caught(lambda: commands._version(True)))


# --- what is shown ---


def test_no_arguments_show_help(run: Run) -> None:
    said = assert_done(run())
    assert "Usage: structsparse" in said
    for command in ("quickstart", "models", "train", "prune", "profile", "export"):
        assert command in said


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress.epoch_progress(2, 3) as callback:
        callback.on_epoch_begin(0)
        callback.on_train_batch_end(0, {})
        callback.on_epoch_end(0, {"loss": 1.0, "accuracy": 0.5, "val_accuracy": 0.25})
    said = capsys.readouterr().out
    assert "epoch 1/2  loss 1.0000  accuracy 0.5000  validation accuracy 0.2500" in said
    assert "0/3" in said


# --- true processes ---

_ALONE = """
import sys, types
package = types.ModuleType("keras_structsparse")  # its __init__ is another matter
package.__path__ = [sys.argv.pop(1)]
sys.modules["keras_structsparse"] = package
from keras_structsparse.cli.main import main
try:
    main()
finally:
    loaded = {"keras", "tensorflow", "numpy"} & set(sys.modules)
    print("loaded:", *loaded, file=sys.stderr)
"""


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["--version"]])
def test_help_comes_without_keras(words: list[str]) -> None:
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, str(Path(commands.__file__).parents[1]), *words],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.strip() == "loaded:"
    assert "structsparse" in done.stdout
    assert time.perf_counter() - start < 10


@pytest.fixture
def module(folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "keras_structsparse", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)

    return call


def test_a_process_ends_with_status_and_one_line(module: Callable[..., Any]) -> None:
    done = module("prune", "no.keras", "--out", "out.keras", "--tau", "-1")
    assert done.returncode == 2
    assert done.stdout == ""
    # TensorFlow may say a word of its own before.
    assert re.search(r"^error: Invalid value for '--tau': .*Received: -1", done.stderr, re.M)
    assert "Traceback" not in done.stderr


_CRASH = """
import os, sys, warnings
import structsparse

structsparse._leave_out_public_names()  # imports no Keras, as structsparse.main
from keras_structsparse.cli import main

def crash(**options):
    warnings.warn("of two" + chr(10) + "lines")
    os.abort()

main.app = crash
structsparse.main()
"""


def test_a_native_crash_is_not_silent() -> None:
    """The command sends the error stream of native libraries to the null device."""
    done = subprocess.run([sys.executable, "-c", _CRASH], capture_output=True, text=True)
    assert done.returncode != 0
    first, second, *rest = done.stderr.splitlines()
    assert (first, second) == ("warning: of two lines", "Fatal Python error: Aborted")
    assert any("in crash" in line for line in rest)


def alone(folder: Path, *words: str) -> str:
    """What the command says in a process of its own, which leaves out the package's names."""
    command = [sys.executable, "-m", "structsparse", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_builds_its_data_and_reads_what_it_has_written(tmp_path: Path) -> None:
    words = [*TRAIN, "--model", "digits-plain", "--data-dir", "data", "--out", "out.keras"]
    alone(tmp_path, *words)
    assert (tmp_path / "data" / "digits").is_dir()
    assert regularizers_of(load_model(tmp_path / "out.keras"))
    said = alone(tmp_path, "prune", "out.keras", "--tau", "1e-3", "--out", "pruned.keras")
    assert "equal (relative difference" in said


def test_a_mistyped_network_is_answered_with_those_of_like_names(run: Run) -> None:
    refused = run(*TRAIN, "--model", "digits-residul", "--out", "out.keras")
    assert_refused(refused, "digits-residual", "Received: 'digits-residul'")
    assert "resnet" not in refused.stderr
