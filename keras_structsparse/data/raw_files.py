"""The raw files of a TFDS builder: which ones, where they are, and whether they can be downloaded.

Without the files and without a network, TFDS tries for minutes before it reports that a download
failed. So the hosts are asked first, for at most `PROBE_SECONDS`; if they do not answer, the error
names the files and the folder for them.
"""

from __future__ import annotations

import concurrent.futures
import json
import threading
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from keras_structsparse.errors import DatasetError

PROBE_SECONDS = 2.0
"""How long the hosts of a data set are waited for, all together."""


class RawFile(NamedTuple):
    """A file that a builder reads.

    Attributes:
        name: Its name in the manual folder; empty if TFDS accepts it only by download.
        size: In bytes.
        url: The address that TFDS downloads it from.
    """

    name: str
    size: int
    url: str


def expected_files(source: Any) -> list[RawFile]:
    """The raw files of a builder, as far as TFDS records them."""
    by_hand = bool(source.MANUAL_DOWNLOAD_INSTRUCTIONS)
    files = []
    for url, info in source.url_infos.items():
        # TFDS records no name for files that users download: it is the one in the address
        name = info.filename or (PurePosixPath(urlsplit(url).path).name if by_hand else "")
        files.append(RawFile(name, int(info.size), url))
    return files


def locate(source: Any) -> Path:
    """The folder to give TFDS as its `manual_dir`; files that it lacks can be downloaded.

    Args:
        source: A TFDS builder whose data are not prepared yet.

    Returns:
        `downloads/manual/NAME`, `downloads/manual` or the data folder itself: the one that holds
        most of the raw files.

    Raises:
        DatasetError: Files are missing, and their hosts do not answer or require a registration.
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
            raise DatasetError(
                _advice(source, missing, manual, "they cannot be downloaded automatically")
            )
    elif silent := unreachable(f.url for f in missing):
        reason = f"{', '.join(silent)} cannot be reached"
        raise DatasetError(_advice(source, missing, manual, reason))
    return folder


def _is_there(folder: Path, file: RawFile, source: Any) -> bool:
    """Same name and size: this tells MNIST from Fashion-MNIST; TFDS itself compares checksums."""
    path = folder / file.name
    if not file.name or not path.is_file():
        return False
    # archives that need a registration may have been packed again
    return bool(source.MANUAL_DOWNLOAD_INSTRUCTIONS) or path.stat().st_size == file.size


def _cached_urls(downloads: Path) -> set[str]:
    """Addresses that TFDS has downloaded before: it keeps an INFO file beside each download."""
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
            "On Debian: apt-get install dataset-fashion-mnist, then in a clone of this project: "
            f"python benchmarks/fashion_mnist.py '{manual}'"
        )
    return "\n".join(lines)


def _wrong_sizes(files: Iterable[RawFile], folders: Iterable[Path]) -> list[str]:
    paths = [(folder / f.name, f.size) for folder in folders for f in files if f.name]
    return [
        f"  {path} has {path.stat().st_size:,} bytes, expected {size:,}: of another data set?"
        for path, size in paths
        if path.is_file() and path.stat().st_size != size
    ]


def unreachable(urls: Iterable[str]) -> list[str]:
    """The hosts of `urls` that do not answer; all are asked at once, for `PROBE_SECONDS` in total.

    Examples:
        >>> unreachable(["http://host.invalid/file"])
        ['host.invalid']
    """
    first = {urlsplit(url).netloc: url for url in urls}
    answers = {host: _ask(url) for host, url in first.items()}
    done, _ = concurrent.futures.wait(answers.values(), timeout=PROBE_SECONDS)
    return sorted(h for h, answer in answers.items() if answer not in done or not answer.result())


def _ask(url: str) -> concurrent.futures.Future[bool]:
    """Ask in a daemon thread: a name server that hangs must not block the process."""
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
