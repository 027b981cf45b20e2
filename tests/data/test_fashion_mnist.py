"""The original files of Fashion-MNIST are restored from those of Debian's package."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_fashion_mnist import IDX_FILES, SCRIPT, restore

from keras_structsparse.errors import DatasetError


def test_the_gzip_header_is_put_back(tmp_path: Path) -> None:
    for name in IDX_FILES:
        (tmp_path / name).write_bytes(gzip.compress(name.encode(), mtime=0))
    restore(tmp_path / "out", tmp_path)
    for name in IDX_FILES:
        raw = (tmp_path / "out" / name).read_bytes()
        seconds = 1504176606 if name.startswith("train") else 1504176627
        assert raw[:4] == b"\x1f\x8b\x08\x08"
        assert struct.unpack("<I", raw[4:8]) == (seconds,)
        assert raw[10:].startswith(name.removesuffix(".gz").encode() + b"\0")
        assert gzip.decompress(raw) == name.encode()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(IDX_FILES)
    restore(tmp_path / "twice", tmp_path / "out")
    for name in IDX_FILES:
        assert (tmp_path / "twice" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_nothing_is_restored_from_an_incomplete_package(tmp_path: Path) -> None:
    (tmp_path / IDX_FILES[0]).write_bytes(gzip.compress(b"x", mtime=0))
    with pytest.raises(DatasetError, match=IDX_FILES[1]):
        restore(tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()


def test_only_gzip_files_are_restored(tmp_path: Path) -> None:
    (tmp_path / IDX_FILES[0]).write_bytes(b"no gzip file")
    with pytest.raises(DatasetError, match="expected a gzip file"):
        restore(tmp_path / "out", tmp_path)


def test_the_script_writes_the_files(tmp_path: Path) -> None:
    for name in IDX_FILES:
        (tmp_path / name).write_bytes(gzip.compress(name.encode(), mtime=0))
    out = tmp_path / "out"
    words = [sys.executable, str(SCRIPT), str(out), "--source", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert f"wrote 4 files into {out}" in done.stdout
    assert sorted(p.name for p in out.iterdir()) == sorted(IDX_FILES)
