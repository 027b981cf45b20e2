"""A figure with its caption and the numbers that it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Figure = Any
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Drawing:
    """A figure.

    Attributes:
        name: What its files are called.
        figure: The matplotlib Figure.
        caption: What it shows.
        rows: The numbers behind it; all rows have the same columns.
    """

    name: str
    figure: Figure
    caption: str
    rows: Sequence[Row]
