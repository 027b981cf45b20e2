"""Fashion-MNIST from Debian's package dataset-fashion-mnist, as the files that TFDS expects.

    python benchmarks/fashion_mnist.py DATA_DIR/downloads/manual

Then ``--data-dir DATA_DIR`` of the benchmarks, and of the command line, builds the data set.

Debian packed the files again, without name and time in the gzip header. With both put back the
bytes are the original ones, and tensorflow-datasets accepts them by its own checksums.
"""

from __future__ import annotations

import argparse
import os
import struct
from pathlib import Path

from keras_structsparse.errors import DatasetError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""The folder of the package's files."""

TIMES = {
    "train-images-idx3-ubyte.gz": 1504176606,
    "train-labels-idx1-ubyte.gz": 1504176606,
    "t10k-images-idx3-ubyte.gz": 1504176627,
    "t10k-labels-idx1-ubyte.gz": 1504176627,
}
"""The original files, with the time in their gzip headers."""


def restore(target: Path, source: Path = DEBIAN) -> None:
    """Write the original files.

    Args:
        target: The folder for the four files.
        source: The folder that holds the four files of the package.

    Raises:
        DatasetError: A file is missing in ``source``, or is not a gzip file.
    """
    contents = {name: _original(source / name) for name in TIMES}
    target.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        part = target / f"{name}.{os.getpid()}.part"
        part.write_bytes(content)
        part.replace(target / name)


def _original(path: Path) -> bytes:
    """The bytes of a file with flag, time and name in its gzip header, as before Debian."""
    if not path.is_file():
        raise DatasetError(
            f"source: expected the file {path} of Debian's package dataset-fashion-mnist"
        )
    packed = path.read_bytes()
    if packed[:3] != b"\x1f\x8b\x08":
        raise DatasetError(f"source: expected a gzip file. Received: {path}")
    if packed[3]:  # already has a header with flags
        return packed
    time = struct.pack("<I", TIMES[path.name])
    return packed[:3] + b"\x08" + time + packed[8:10] + path.stem.encode() + b"\0" + packed[10:]


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("target", type=Path, help="the folder for the four files")
    parser.add_argument("--source", type=Path, default=DEBIAN, help="the package's folder")
    options = parser.parse_args()
    restore(options.target, options.source)
    print(f"wrote {len(TIMES)} files into {options.target}")


if __name__ == "__main__":
    main()
