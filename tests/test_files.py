"""Atomic writing: the new one, or the old one untouched, and nothing beside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keras_structsparse import _files
from keras_structsparse.errors import OutputError


def tree(path: Path) -> dict[str, str | None]:
    return {
        str(entry.relative_to(path)): entry.read_text() if entry.is_file() else None
        for entry in sorted(path.rglob("*"))
    }


def test_text_is_written_as_it_is_and_parents_are_made(tmp_path: Path) -> None:
    path = _files.write_text(tmp_path / "a" / "b.txt", "x×\r\ny\n")
    assert path.read_bytes() == "x×\r\ny\n".encode()
    assert os.listdir(path.parent) == ["b.txt"]


def test_a_file_is_replaced(tmp_path: Path) -> None:
    _files.write_text(tmp_path / "a", "old")
    _files.write_text(tmp_path / "a", "new")
    assert tree(tmp_path) == {"a": "new"}


def test_the_writer_gets_a_new_path_beside_the_target_with_its_suffix(tmp_path: Path) -> None:
    seen: list[Path] = []

    def write(path: Path) -> None:
        assert not path.exists()
        seen.append(path)
        path.write_text("x")

    _files.write_atomically(tmp_path / "model.keras", write)
    assert seen[0].parent == tmp_path
    assert seen[0].suffix == ".keras"
    assert seen[0].name != "model.keras"


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
@pytest.mark.parametrize("half", ["nothing", "file", "directory"])
def test_a_writer_that_fails_leaves_no_trace(
    tmp_path: Path, half: str, error: BaseException
) -> None:
    def write(path: Path) -> None:
        if half == "directory":
            path.mkdir()
            (path / "part").write_text("half")
        if half == "file":
            path.write_text("half")
        raise error

    _files.write_text(tmp_path / "a", "old")
    with pytest.raises(type(error)):
        _files.write_atomically(tmp_path / "a", write)
    assert tree(tmp_path) == {"a": "old"}


def write_directory(path: Path) -> None:
    path.mkdir()
    (path / "new").write_text("new")
    _files.write_manifest(path)


def test_a_directory_is_made_and_replaced_whole(tmp_path: Path) -> None:
    for _ in range(2):
        _files.write_atomically(tmp_path / "d", write_directory)
        assert set(tree(tmp_path)) == {"d", "d/new", f"d/{_files.MANIFEST}"}


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_directory_with_something_else_is_never_replaced(tmp_path: Path, when: str) -> None:
    target = tmp_path / "d"
    _files.write_atomically(target, write_directory)
    names = [f"thesis {number}.tex" for number in range(7)]

    def put() -> None:
        for name in names:
            (target / name).write_text("mine")

    def write(path: Path) -> None:
        write_directory(path)
        put()

    if when == "before":
        put()
    with pytest.raises(OutputError, match=r"holds 'thesis 0.tex', .*'thesis 4.tex' and 2 others"):
        _files.write_atomically(target, write if when == "meanwhile" else write_directory)
    assert {f"d/{name}" for name in names} < set(tree(tmp_path))
    assert os.listdir(tmp_path) == ["d"], "nothing is left beside it"


def test_a_directory_that_cannot_be_put_in_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _files.write_atomically(tmp_path / "d", write_directory)
    before, rename, calls = tree(tmp_path), os.rename, []

    def second_fails(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise OSError("disk on fire")
        rename(source, target)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(OutputError, match="disk on fire"):
        _files.write_atomically(tmp_path / "d", write_directory)
    assert tree(tmp_path) == before


def test_a_directory_does_not_replace_a_file_nor_a_file_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "directory").mkdir()
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="Received a file"):
        _files.write_atomically(tmp_path / "file", write_directory)
    with pytest.raises(OutputError, match="Received a directory"):
        _files.write_text(tmp_path / "directory", "x")
    assert tree(tmp_path) == before


def test_a_pipe_or_device_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OutputError, match=r"pipe: expected .* Received a device, a pipe or a sock"):
        _files.write_text(pipe, "text")
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_file_without_end_is_not_read_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_files, "MOST_TEXT", 2**20)
    with pytest.raises(OSError, match=r"a text of at most 1 MiB. Received more"):
        _files.read_bytes("/dev/zero")
    written = _files.write_text(tmp_path / "a", "x" * 2**20)
    assert _files.read_bytes(written) == b"x" * 2**20


def test_the_file_behind_a_symbolic_link_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    _files.write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_link_without_the_suffix_does_not_change_it(tmp_path: Path) -> None:
    """As in the caches of huggingface_hub and of git-annex."""
    (tmp_path / "blob").write_text("old")
    (tmp_path / "model.keras").symlink_to(tmp_path / "blob")
    seen: list[str] = []

    def write(path: Path) -> None:
        seen.append(path.suffix)
        path.write_text("new")

    _files.write_atomically(tmp_path / "model.keras", write)
    assert seen == [".keras"]
    assert (tmp_path / "blob").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["blob", "model.keras"]


def test_a_disk_without_room_is_named(tmp_path: Path) -> None:
    _files.check_room(tmp_path, 1, "a network")
    with pytest.raises(OutputError, match=r"--out: expected .* free bytes for a network\. .* has"):
        _files.check_room(tmp_path, 2**80, "a network", "--out")


def test_a_directory_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _files.new_directory(tmp_path / "run")

    def refused(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    with pytest.raises(OutputError, match=r"workdir: expected .* written.*run: Permission denied"):
        _files.new_directory(tmp_path / "run", "workdir")


def test_a_parent_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="file/a: expected a path that can be written"):
        _files.write_text(tmp_path / "file" / "a", "x")


# --- directories of ours ---


def test_a_mark_that_could_not_be_written_is_no_foreign_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, and a kill while the mark was written: the next call goes on."""

    def full(self: Path, content: bytes) -> int:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match="No space left"):
            _files.new_directory(tmp_path / "runs")
    (tmp_path / "runs" / f".{_files.MARKER}.0123456789ab").write_text("writ")
    assert _files.is_ours(_files.new_directory(tmp_path / "runs"))


def test_a_new_directory_is_marked_and_taken_again_with_its_content(tmp_path: Path) -> None:
    path = _files.new_directory(tmp_path / "a" / "runs")
    assert os.listdir(path) == [".structsparse"]
    (path / "result.json").write_text("{}")
    assert _files.new_directory(path) == path
    assert (path / "result.json").read_text() == "{}"


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    assert _files.is_ours(_files.new_directory(tmp_path))


@pytest.mark.parametrize("name", ["thesis.tex", ".hidden", ".structsparse"])
def test_what_is_not_ours_is_refused_and_untouched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=f"--out: expected a new or empty .*{name}"):
        _files.new_directory(tmp_path, "--out")
    assert tree(tmp_path) == {name: "mine"}


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"path: expected .* Received a file"):
        _files.new_directory(tmp_path / "file")
    with pytest.raises(OutputError, match="path: expected"):
        _files.new_directory(tmp_path / "file" / "below")


# --- manifests ---


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"files": ["mine"]}', '{"format": "x", "files": ["mine"]}']
)
def test_a_damaged_manifest_lists_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine").write_text("x")
    _files.write_manifest(tmp_path)
    assert _files.unlisted(tmp_path) == ()  # the control
    (tmp_path / _files.MANIFEST).write_text(text)
    assert _files.unlisted(tmp_path) == (_files.MANIFEST, "mine")


def test_what_lies_behind_a_link_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "mine").write_text("x")
    (tmp_path / "inside").mkdir()
    _files.write_manifest(tmp_path / "inside")
    (tmp_path / "inside" / "link").symlink_to(tmp_path / "outside")
    assert _files.unlisted(tmp_path / "inside") == ("link",)
    assert _files.unlisted(tmp_path / "nowhere") == ()
