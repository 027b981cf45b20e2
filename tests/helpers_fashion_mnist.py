"""The benchmarks' script that restores the original files of Fashion-MNIST."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "fashion_mnist.py"

_names: Mapping[str, Any] = runpy.run_path(str(SCRIPT))

DEBIAN: Path = _names["DEBIAN"]
IDX_FILES: list[str] = list(_names["TIMES"])
restore: Callable[..., None] = _names["restore"]
