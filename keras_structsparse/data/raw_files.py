"""The raw files behind a TFDS builder: which, where they may lie, and whether a host has them.

TFDS tries for minutes before it says that a download failed, so this asks first, for at most
`PROBE_SECONDS`, and otherwise says which files to put where.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import struct
import threading
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from keras_structsparse.errors import DatasetError

PROBE_SECONDS = 2.0
"""All the time that the hosts of a data set have to answer."""

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""

FASHION_MNIST_TIMES = {
    "train-images-idx3-ubyte.gz": 1504176606,
    "train-labels-idx1-ubyte.gz": 1504176606,
    "t10k-images-idx3-ubyte.gz": 1504176627,
    "t10k-labels-idx1-ubyte.gz": 1504176627,
}
"""The original files and the time that stands in their gzip headers."""


class RawFile(NamedTuple):
    """A file that a builder reads.

    Attributes:
        name: What it must be called in the manual folder; empty: TFDS only takes it by download.
        size: In bytes.
        url: Where TFDS would download it.
    """

    name: str
    size: int
    url: str


def expected_files(source: Any) -> list[RawFile]:
    """The raw files of a builder, as far as TFDS records them."""
    by_hand = bool(source.MANUAL_DOWNLOAD_INSTRUCTIONS)
    files = []
    for url, info in source.url_infos.items():
        # files that only come by hand have no recorded name: it is the one in the address
        name = info.filename or (PurePosixPath(urlsplit(url).path).name if by_hand else "")
        files.append(RawFile(name, int(info.size), url))
    return files


def locate(source: Any) -> Path:
    """The folder to give TFDS as its `manual_dir`; what is not in there can be had otherwise.

    Args:
        source: A TFDS builder whose data are not prepared yet.

    Returns:
        `downloads/manual/NAME`, `downloads/manual` or the data folder itself: the one that holds
        most of the raw files.

    Raises:
        DatasetError: Files are missing, and their hosts do not answer or want a registration.
    """
    root = Path(str(source.data_dir_root)).expanduser()
    manual = root / "downloads" / "manual"
    wanted = expected_files(source)
    folders = [manual / source.name, manual, root]
    folder = max(folders, key=lambda f: sum(_is_there(f, file, source) for file in wanted))
    cached = _cached_urls(root / "downloads")
    missing = [f for f in wanted if f.url not in cached and not _is_there(folder, f, source)]
    if source.MANUAL_DOWNLOAD_INSTRUCTIONS:
        if missing or not folder.is_dir():
            raise DatasetError(_advice(source, missing, manual, "they only come by hand"))
    elif silent := unreachable(f.url for f in missing):
        reason = f"{', '.join(silent)} cannot be reached"
        raise DatasetError(_advice(source, missing, manual, reason))
    return folder


def _is_there(folder: Path, file: RawFile, source: Any) -> bool:
    """Same name and size: enough to tell MNIST from Fashion-MNIST; TFDS compares checksums."""
    path = folder / file.name
    if not file.name or not path.is_file():
        return False
    # archives of sets with registration may have been packed anew
    return bool(source.MANUAL_DOWNLOAD_INSTRUCTIONS) or path.stat().st_size == file.size


def _cached_urls(downloads: Path) -> set[str]:
    """What TFDS has downloaded before: it keeps an INFO file beside each download."""
    urls: set[str] = set()
    for info in downloads.glob("**/*.INFO"):
        if info.with_suffix("").is_file():
            urls.update(json.loads(info.read_text(encoding="utf-8")).get("urls", ()))
    return urls


def _advice(source: Any, missing: Iterable[RawFile], manual: Path, reason: str) -> str:
    lines = [
        f"data set {source.name!r}: neither prepared data nor all raw files found in "
        f"{source.data_dir_root}, and {reason}.",
        f"Put these files into {manual} (or its subfolder {source.name}):",
        *(f"  {f.name} ({f.size:,} bytes) from {f.url}" for f in missing if f.name),
        *(f"  (only by download) {f.url}" for f in missing if not f.name),
        *_wrong_sizes(missing, [manual / source.name, manual, Path(str(source.data_dir_root))]),
        f"or copy the prepared folder {source.data_path} from another machine.",
    ]
    if source.MANUAL_DOWNLOAD_INSTRUCTIONS:
        lines.append(" ".join(source.MANUAL_DOWNLOAD_INSTRUCTIONS.split()))
    if source.name == "fashion_mnist":
        lines.append(
            "On Debian: apt-get install dataset-fashion-mnist, then in Python: keras_structsparse."
            f"datasets.restore_fashion_mnist({str(manual)!r})"
        )
    return "\n".join(lines)


def _wrong_sizes(files: Iterable[RawFile], folders: Iterable[Path]) -> list[str]:
    paths = [(folder / f.name, f.size) for folder in folders for f in files if f.name]
    return [
        f"  {path} has {path.stat().st_size:,} bytes, expected {size:,}: another data set's file?"
        for path, size in paths
        if path.is_file() and path.stat().st_size != size
    ]


def unreachable(urls: Iterable[str]) -> list[str]:
    """The hosts of `urls` that do not answer; asks all at once, for `PROBE_SECONDS` in total.

    Examples:
        >>> unreachable(["http://host.invalid/file"])
        ['host.invalid']
    """
    first = {urlsplit(url).netloc: url for url in urls}
    answers = {host: _ask(url) for host, url in first.items()}
    done, _ = concurrent.futures.wait(answers.values(), timeout=PROBE_SECONDS)
    return sorted(h for h, answer in answers.items() if answer not in done or not answer.result())


def _ask(url: str) -> concurrent.futures.Future[bool]:
    """Asks in a daemon thread: a name server that hangs must not hold up the process."""
    answer: concurrent.futures.Future[bool] = concurrent.futures.Future()
    threading.Thread(target=lambda: answer.set_result(_answers(url)), daemon=True).start()
    return answer


def _answers(url: str) -> bool:
    """Whether the host, or the proxy before it, answers with anything but a server error."""
    import requests  # comes with tensorflow-datasets, which downloads with it

    try:
        with requests.head(url, timeout=PROBE_SECONDS, allow_redirects=True) as reply:
            return bool(reply.status_code < 500 and reply.status_code != 407)
    except (requests.RequestException, OSError, ValueError):
        return False


def restore_fashion_mnist(target: str | Path, source: str | Path = DEBIAN_FASHION_MNIST) -> None:
    """Turns the files of Debian's package dataset-fashion-mnist into the original downloads.

    Debian repacked them without name and time in the gzip header; with these put back the bytes
    are the original ones, and TFDS accepts them by its own checksums.

    Args:
        target: Where to write the four files, e.g. `DATA_DIR/downloads/manual`.
        source: Folder that holds the four files of the package.

    Raises:
        DatasetError: A file is missing in `source`, or is not a gzip file.
    """
    contents = {name: _original(Path(source) / name) for name in FASHION_MNIST_TIMES}
    Path(target).mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        part = Path(target) / f"{name}.{os.getpid()}.part"
        part.write_bytes(content)
        part.replace(Path(target) / name)


def _original(path: Path) -> bytes:
    """The bytes of a repacked gzip file with its first header: flag, time and name put back."""
    if not path.is_file():
        raise DatasetError(
            f"source: expected the file {path}; Debian's package dataset-fashion-mnist has it"
        )
    packed = path.read_bytes()
    if packed[:3] != b"\x1f\x8b\x08":
        raise DatasetError(f"source: expected a gzip file, received {path}")
    if packed[3]:  # it has a header of its own already
        return packed
    time = struct.pack("<I", FASHION_MNIST_TIMES[path.name])
    return packed[:3] + b"\x08" + time + packed[8:10] + path.stem.encode() + b"\0" + packed[10:]
