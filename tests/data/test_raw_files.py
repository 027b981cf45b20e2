"""Raw files: found wherever they may lie, asked for by name, and made original again."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from keras_structsparse.data import raw_files
from keras_structsparse.data.raw_files import restore_fashion_mnist
from keras_structsparse.errors import DatasetError

IDX_FILES = list(raw_files.FASHION_MNIST_TIMES)


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


def test_the_gzip_header_is_put_back(tmp_path: Path) -> None:
    for name in IDX_FILES:
        (tmp_path / name).write_bytes(gzip.compress(name.encode(), mtime=0))
    restore_fashion_mnist(tmp_path / "out", tmp_path)
    for name in IDX_FILES:
        raw = (tmp_path / "out" / name).read_bytes()
        seconds = 1504176606 if name.startswith("train") else 1504176627
        assert raw[:4] == b"\x1f\x8b\x08\x08"
        assert struct.unpack("<I", raw[4:8]) == (seconds,)
        assert raw[10:].startswith(name.removesuffix(".gz").encode() + b"\0")
        assert gzip.decompress(raw) == name.encode()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(IDX_FILES)
    restore_fashion_mnist(tmp_path / "twice", tmp_path / "out")
    for name in IDX_FILES:
        assert (tmp_path / "twice" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_nothing_is_restored_from_an_incomplete_package(tmp_path: Path) -> None:
    (tmp_path / IDX_FILES[0]).write_bytes(gzip.compress(b"x", mtime=0))
    with pytest.raises(DatasetError, match=IDX_FILES[1]):
        restore_fashion_mnist(tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()


def test_only_gzip_files_are_restored(tmp_path: Path) -> None:
    (tmp_path / IDX_FILES[0]).write_bytes(b"no gzip file")
    with pytest.raises(DatasetError, match="expected a gzip file"):
        restore_fashion_mnist(tmp_path / "out", tmp_path)
