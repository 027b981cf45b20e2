"""Texts of users in Markdown, printed as they are."""

from __future__ import annotations

import re


def escaped(text: object) -> str:
    r"""A text in one line, without signs that Markdown would take for its own.

    Args:
        text: The text, such as a name of a file or a layer.

    Examples:
        >>> print(escaped("a|b <i>\n$x$"))
        a\|b \<i> \$x\$
    """
    return re.sub(r"([\\`*\[\]<|$])", r"\\\1", " ".join(str(text).split()))


def fenced(text: str) -> list[str]:
    """The lines of a block of code, whatever it holds.

    Args:
        text: The text.

    Examples:
        >>> fenced("a ``` b")
        ['````', 'a ``` b', '````']
    """
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(longest + 1, 3)
    return [fence, text, fence]
