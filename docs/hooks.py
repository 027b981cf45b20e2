"""What the site shows of the repository's other files, and equations without scripts.

Notebooks become pages as they are committed, outputs and pictures included; nothing is run here.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
}
RESULTS = ("*.png", "*.txt")

_CODE = r"(```.*?```|`[^`\n]*`)"
_EQUATION = r"\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+)\$"


def on_files(files: Any, config: Any) -> Any:
    """Add pages and results from outside the documentation's folder."""
    from mkdocs.structure.files import File

    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text("utf-8")))
    results = ROOT / "benchmarks" / "results"
    for path in sorted(path for kind in RESULTS for path in results.glob(kind)):
        place = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, place, abs_src_path=str(path)))
    for path in sorted((ROOT / "tutorials").glob("*.ipynb")):
        text, pictures = page_of(json.loads(path.read_text("utf-8")), path.stem)
        files.append(File.generated(config, f"tutorials/{path.stem}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"tutorials/{name}", content=content))
    return files


def page_of(notebook: Any, stem: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as a page.

    Args:
        notebook: What its file holds.
        stem: How the names of its pictures begin.

    Returns:
        Markdown, and the pictures by name.
    """
    parts, pictures = list[str](), dict[str, bytes]()
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        code = cell["cell_type"] == "code"
        parts.append(f"```python\n{source}\n```" if code else source)
        for output in cell.get("outputs", ()):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                name = f"{stem}-{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![Output of the lines above]({name})")
            elif text := "".join(data.get("text/plain", "")).rstrip():
                parts.append(f"```text\n{text}\n```")
    return "\n\n".join(parts) + "\n", pictures


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as they are on the site, equations as MathML."""
    markdown = markdown.replace("](../benchmarks/", "](benchmarks/")
    markdown = re.sub(r"\]\(([^)\s]*)\.ipynb\)", r"](\1.md)", markdown)
    if page.file.src_uri.startswith("tutorials/"):
        markdown = markdown.replace("](../docs/", "](../")
    if page.file.src_uri in PAGES.values():
        markdown = markdown.replace("](docs/", "](")
    return equations(markdown)


def equations(markdown: str) -> str:
    """The text with every ``$...$`` and ``$$...$$`` outside of code as MathML."""
    parts = re.split(_CODE, markdown, flags=re.DOTALL)
    return "".join(
        part if index % 2 else re.sub(_EQUATION, _mathml, part, flags=re.DOTALL)
        for index, part in enumerate(parts)
    )


def _mathml(match: re.Match[str]) -> str:
    from latex2mathml.converter import convert

    block, inline = match["block"], match["inline"]
    text: str = convert((block or inline).strip(), display="block" if block else "inline")
    # Markdown would make a paragraph of its own of a line that starts with <math>.
    return f"\n{text}\n" if block else f"<span>{text}</span>"
