"""Templates of HTML pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def page_template(folder: Path) -> Any:
    """The template ``report.html`` of a folder, which escapes all texts.

    Args:
        folder: The folder.

    Raises:
        ImportError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise ImportError(
            "report: expected jinja2, which makes the page: pip install "
            f"'keras-structsparse[plots]'. Received: {error}"
        ) from error
    loader = jinja2.FileSystemLoader(folder)
    return jinja2.Environment(loader=loader, autoescape=True).get_template("report.html")
