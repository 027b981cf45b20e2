"""Base architectures as short specifications: ``"(64,7),(64,3)x2,(128,3)x2"``."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras_structsparse.models.base_architecture import (
    INITIALIZERS,
    MOST_LAYERS,
    NORMALIZATIONS,
    Base,
)

# Numbers that int() takes without a limit on their digits; what they may be is checked later.
_N = r"(\d{1,1000})"
_RUN = rf"\(\s*{_N}\s*,\s*{_N}\s*(?:,\s*([12])\s*)?\)(?:\s*[x×]\s*{_N})?"
_SPEC = rf"\s*(?P<layers>{_RUN}(?:\s*,\s*{_RUN})*)(?P<words>(?:\s+\S+)*)\s*"

_SETTINGS: Mapping[str, tuple[Sequence[str], Callable[[str], Mapping[str, Any]]]] = {
    "shortcuts": (("plain", "residual"), lambda word: {"residual": word == "residual"}),
    "pool": (("pool",), lambda word: {"pooled": True}),
    "norm": (
        tuple(f"norm={where}" for where in NORMALIZATIONS),
        lambda word: {"normalization": word.removeprefix("norm=")},
    ),
    "init": (
        tuple(f"init={name}" for name in INITIALIZERS),
        lambda word: {"initializer": word.removeprefix("init=")},
    ),
}
"""The words that may follow the layers, and the attributes of a Base that they set."""

WORDS = tuple(word for words, _ in _SETTINGS.values() for word in words)


def parse(text: str) -> Base:
    """Read a base architecture.

    ``(width,size)`` is a convolution, ``(width,size,2)`` one with stride 2, ``xN`` repeats it (only
    the first has the stride). Without any stride in the text, :func:`strides` chooses them. Words
    that may follow the layers: ``plain`` (no shortcuts), ``pool`` (3x3 max pooling with stride 2
    after the first convolution), ``norm=before`` or ``norm=none``, ``init=he_normal`` or
    ``init=glorot_uniform``.

    Args:
        text: The specification.

    Returns:
        The base.

    Raises:
        ValueError: The text is not a specification, or that of a network too large to be meant.

    Examples:
        >>> parse("(64,5)x18").strided
        (7, 13)
        >>> parse("(8,7,2),(8,3)x2 plain norm=none").layers
        ((8, 7), (8, 3), (8, 3))
    """
    match = re.fullmatch(_SPEC, text)
    if match is None:
        raise ValueError(f"model: expected layers such as (64,7),(64,3)x2. Received: {text!r}")
    parts = list(re.finditer(_RUN, match["layers"]))
    if (count := sum(int(part[4] or 1) for part in parts)) > MOST_LAYERS:
        raise ValueError(
            f"model: expected at most {MOST_LAYERS:,} convolutions. Received: {text!r} with {count}"
        )
    runs = [_run(part) for part in parts]
    found = tuple(layer for run, _ in runs for layer in run)
    if not found or min(min(layer) for layer in found) < 1:
        raise ValueError(
            f"model: expected widths, sizes and repeats of at least 1. Received: {text!r}"
        )
    starts = itertools.accumulate((len(run) for run, _ in runs), initial=0)
    given = tuple(start for start, (_, stride) in zip(starts, runs, strict=False) if stride == 2)
    return Base(found, given or strides(found), **_settings(match["words"].split()))


def strides(layers: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """The convolutions with stride 2 if the specification names none.

    The paper does not say where its networks have strides. Here they are where the width grows, as
    in residual networks. A square bound, whose width never grows, has two: after a third and after
    two thirds of the layers, each at the first layer of a pair.

    Args:
        layers: (width, size) of each convolution.

    Returns:
        Indices of convolutions.

    Examples:
        >>> strides([(16, 3)] * 7 + [(32, 3)] * 6 + [(64, 3)] * 6)
        (7, 13)
        >>> strides([(16, 5)] * 7)
        (3, 5)
    """
    widths = [width for width, _ in layers]
    grown = tuple(i + 1 for i, (a, b) in enumerate(itertools.pairwise(widths)) if b > a)
    if grown:
        return grown
    thirds = {_odd(-(-len(layers) * part // 3)) for part in (1, 2)}
    return tuple(sorted(index for index in thirds if index < len(layers)))


def _odd(index: int) -> int:
    return index + 1 - index % 2


def is_spec(text: str) -> bool:
    """Whether a text is a specification of a base architecture, not a name."""
    return text.lstrip().startswith("(")


def text_of(base: Base) -> str:
    """The layers of a base as a specification.

    Examples:
        >>> text_of(Base(((64, 7), (64, 3), (64, 3))))
        '(64,7),(64,3)x2'
    """
    runs = [(layer, len(list(run))) for layer, run in itertools.groupby(base.layers)]
    return ",".join(f"({w},{s})" + (f"x{n}" if n > 1 else "") for (w, s), n in runs)


def _run(match: re.Match[str]) -> tuple[list[tuple[int, int]], int]:
    width, size, stride, count = match.groups()
    return [(int(width), int(size))] * int(count or 1), int(stride or 1)


def _settings(words: Sequence[str]) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for word in words:
        reads = [read for allowed, read in _SETTINGS.values() if word in allowed]
        if not reads:
            raise ValueError(f"model: expected a word of {', '.join(WORDS)}. Received: {word!r}")
        found.update(reads[0](word))
    return found
