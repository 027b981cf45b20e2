"""Folders of small images, as users have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from helpers_records import jpeg


def bright_and_dark(
    root: Path,
    each: int = 10,
    classes: Sequence[str] = ("bright", "dark"),
    size: tuple[int, int] = (12, 16),
    seed: int = 0,
) -> None:
    """Noisy images, darker from class to class."""
    rng = np.random.default_rng(seed)
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        level = 200 - 150 * number / max(len(classes) - 1, 1)
        for i in range(each):
            image = np.clip(rng.normal(level, 10, (*size, 3)), 0, 255).astype(np.uint8)
            (root / name / f"{i:03}.jpg").write_bytes(jpeg(image))
