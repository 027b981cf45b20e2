"""`docs/keras-habits.md` says of every habit what is found when it is tried."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest
from helpers_habit_cells import WAYS, outcome
from helpers_habit_page import PAGE, row, table, written
from helpers_habits import HABITS

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the page is about TensorFlow"
)

QUICK = (
    ("`EarlyStopping(restore_best_weights=True)`", "`TargetMultiplyAdds`"),
    ("averages (`use_ema=True`)", "`fit_shrinking`"),
    ("a `train_step` of your own", "`sweep`"),
    ("class weights", "`sweep`"),
    ("frozen normalisations", "`KernelSize`"),
    ("`save`, `load_model`", "`KernelCount`"),
)
"""Cells for the normal run."""


def test_the_page_has_a_cell_for_everything_and_no_other() -> None:
    cells = written()
    assert set(cells) == {(name, way) for name in HABITS for way in WAYS}
    assert all(text == "works" or text.startswith("refused: ") for text in cells.values())
    assert table(cells) in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "way"), QUICK)
def test_a_cell_says_what_is_found(name: str, way: str, tmp_path: Path) -> None:
    assert outcome(name, way, tmp_path) == written()[name, way]


@pytest.mark.slow
@pytest.mark.parametrize("name", HABITS)
def test_a_row_says_what_is_found(name: str) -> None:
    assert row(name) == {way: written()[name, way] for way in WAYS}
