"""A run directory that version 0.1 wrote is read, continued, chosen from and reported on."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from keras_structsparse.cli import app
from keras_structsparse.errors import OutputError
from keras_structsparse.models.card import Card
from keras_structsparse.profiling.profile import profile
from keras_structsparse.sweeps import Settings, Trial, open_run, read_run
from keras_structsparse.sweeps.choosing import Wish, choose_network
from keras_structsparse.training.penalty_config import PenaltyConfig
from keras_structsparse.training.recipes import Recipe

FILES = Path(__file__).parents[1] / "data_files"
SETTINGS = Settings(
    "one convolution",
    "400 digits",
    alphas=(0.004, 0.02),
    taus=(0.0, 0.1),
    recipe=Recipe(epochs=4, batch_size=16),
    path=Recipe(epochs=2, batch_size=16, ramp=0.0),
    shrink_every=2,
    max_drop=1.0,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the directory."""
    return Path(shutil.copytree(FILES / "run_of_version_0_1", tmp_path / "run"))


def test_its_points_and_networks_are_read(folder: Path) -> None:
    found = read_run(folder).found()
    assert [f.trial for f in found] == list(SETTINGS.trials)
    assert [f.point.multiply_adds for f in found] == [2344, 2344, 74]
    for each in found:
        model = keras.models.load_model(each.model)
        assert profile(model).multiply_adds == each.point.multiply_adds
    assert set(read_run(folder).correlations()) == set(SETTINGS.trials)


def test_it_has_the_settings_of_today(folder: Path) -> None:
    assert open_run(folder, SETTINGS).settings == SETTINGS.record()
    assert SETTINGS.record()["form"] == asdict(PenaltyConfig())
    with pytest.raises(OutputError, match="seeds: the run has"):
        open_run(folder, replace(SETTINGS, seeds=(1,)))


def test_its_path_can_be_continued(folder: Path) -> None:
    start = read_run(folder).start(Trial(0.004, 0))
    assert start is not None
    assert start.whole == 2344
    assert start.model(np.zeros((1, 8, 8, 1))).shape == (1, 10)
    assert start.ancestry.widths == {"conv": 4, "head": 10}


def test_a_network_of_it_is_chosen_and_reported_on(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    chosen = choose_network(read_run(folder), Wish(max_drop=1.0))
    assert chosen.point.multiply_adds == 74
    result = CliRunner().invoke(app, ["report", str(folder)])
    assert result.exit_code == 0, result.output
    assert "one convolution on 400 digits" in (folder / "report.html").read_text()
    (folder / "trials" / "alpha-0.0-seed-0.json").unlink()
    assert CliRunner().invoke(app, ["report", str(folder)]).exit_code == 2, "the control"


def test_a_card_of_that_time_is_read() -> None:
    text = (FILES / "card_of_version_0_1.json").read_text()
    card = Card.from_json(text)
    assert (card.base, card.alpha, card.multiply_adds) == ("one convolution", 0.02, 74)
    assert json.loads(card.to_json()) == json.loads(text)
