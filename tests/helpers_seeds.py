"""Seeds of random cases: a few for every run, hundreds for the slow one."""

from __future__ import annotations

from typing import Any

import pytest

ALL = 300
"""How many cases the slow run tries."""


def seeds(quick: int) -> list[Any]:
    """Seeds for ``pytest.mark.parametrize``; all but the first ``quick`` are marked slow."""
    slow = [pytest.param(seed, marks=pytest.mark.slow) for seed in range(quick, ALL)]
    return [*range(quick), *slow]
