"""Raw files: found in every place that they may be in, and named where they are missing."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from keras_structsparse.data import raw_files
from keras_structsparse.errors import DatasetError


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without a network, also on machines that have one."""
    monkeypatch.setattr(raw_files, "_answers", lambda url: False)


def source(root: Path, by_hand: str | None = None) -> Any:
    """A stand-in for a TFDS builder with one raw file of four bytes."""
    info = SimpleNamespace(filename="raw.gz", size=4)
    return SimpleNamespace(
        name="fake",
        data_dir_root=root,
        data_path=root / "fake" / "1.0.0",
        url_infos={"http://host.invalid/raw.gz": info},
        MANUAL_DOWNLOAD_INSTRUCTIONS=by_hand,
    )


@pytest.mark.parametrize("place", ["downloads/manual/fake", "downloads/manual", "."])
@pytest.mark.parametrize("by_hand", [None, "register first"])
@pytest.mark.usefixtures("offline")
def test_raw_files_are_found(tmp_path: Path, place: str, by_hand: str | None) -> None:
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "raw.gz").write_bytes(b"four")
    assert raw_files.locate(source(tmp_path, by_hand)) == tmp_path / place


@pytest.mark.usefixtures("offline")
def test_an_earlier_download_will_do(tmp_path: Path) -> None:
    downloads = tmp_path / "downloads" / "fake"
    downloads.mkdir(parents=True)
    (downloads / "raw.gz").write_bytes(b"four")
    info = {"urls": ["http://host.invalid/raw.gz"]}
    (downloads / "raw.gz.INFO").write_text(json.dumps(info))
    raw_files.locate(source(tmp_path))


def test_a_host_that_answers_will_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(raw_files, "_answers", lambda url: True)
    raw_files.locate(source(tmp_path))


@pytest.mark.usefixtures("offline")
def test_what_only_comes_by_download_says_so(tmp_path: Path) -> None:
    fake = source(tmp_path)
    fake.url_infos["http://host.invalid/raw.gz"].filename = None
    with pytest.raises(DatasetError, match="only by download"):
        raw_files.locate(fake)
