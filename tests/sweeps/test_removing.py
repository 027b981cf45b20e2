"""A run is removed without a file that a sweep did not write."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers_sweeps import SETTINGS

from keras_structsparse.errors import OutputError
from keras_structsparse.sweeps import open_run
from keras_structsparse.sweeps.removing import remove_run

OURS = (
    *("trials/alpha-0.0-seed-0.json", "trials/.alpha-0.0-seed-0.0123456789ab.json"),
    *("models/alpha-1e-05-seed-0-tau-0.0.keras", "models/alpha-1e-05-seed-0-trained.json"),
    *("points.csv", "report.html", "frontier.png", "kernels.svg", "correlation_dense.csv"),
)


def filled(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    return folder


def test_all_that_a_sweep_writes_is_removed(tmp_path: Path) -> None:
    folder = filled(open_run(tmp_path / "run", SETTINGS).folder, OURS)
    remove_run(folder)
    assert list(folder.iterdir()) == []
    remove_run(tmp_path / "nothing")


@pytest.mark.parametrize(
    "name",
    ["thesis.tex", "frontier.pdf", "models/mine.keras", "trials/notes/a.json", "a/b.csv"],
)
def test_nothing_is_removed_beside_something_else(tmp_path: Path, name: str) -> None:
    folder = filled(open_run(tmp_path / "run", SETTINGS).folder, (*OURS, name))
    before = sorted(folder.rglob("*"))
    with pytest.raises(OutputError, match=r"nothing but an earlier run in .*Received: ."):
        remove_run(folder)
    assert sorted(folder.rglob("*")) == before


def test_what_a_link_points_to_stays(tmp_path: Path) -> None:
    filled(tmp_path / "elsewhere", ("alpha-1.0-seed-0.json",))
    folder = open_run(tmp_path / "run", SETTINGS).folder
    (folder / "trials").symlink_to(tmp_path / "elsewhere")
    remove_run(folder)
    assert list(folder.iterdir()) == []
    assert (tmp_path / "elsewhere" / "alpha-1.0-seed-0.json").is_file()
