"""Write a shrunk network with all that its user needs: exports, card, figure and report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from keras_structsparse._files import write_text
from keras_structsparse._typing import StrPath
from keras_structsparse.errors import StructSparseError
from keras_structsparse.export.formats import EXPORTERS, check_installed
from keras_structsparse.export.markdown import escaped
from keras_structsparse.export.verified import export
from keras_structsparse.plots import comparison_figure, save
from keras_structsparse.plots.style import matplotlib_or_explain
from keras_structsparse.training.shrink.measured import Row, machine, rows_of
from keras_structsparse.training.shrink.report import page, template
from keras_structsparse.training.shrink.result import FILES, ShrinkResult
from keras_structsparse.training.training_data import Data

FORMATS = ("saved_model", "litert")
"""What is exported unless something else is asked for."""

FIGURE, REPORT, CARD = "layers.png", "report.html", "card.md"


@dataclass(frozen=True)
class HandedOver:
    """What :func:`hand_over` wrote.

    Attributes:
        folder: The directory.
        rows: The numbers of the card.
        sizes: The sizes of the files and directories in bytes, by name.
        failed: For each export that was not possible, why.
    """

    folder: Path
    rows: tuple[Row, ...]
    sizes: Mapping[str, int]
    failed: tuple[str, ...]

    @property
    def doubts(self) -> tuple[str, ...]:
        """What a user who wants a faster network should know."""
        return tuple(
            f"{row.name}: {row.after} after, {row.before} before. The network is not faster there; "
            "give a budget in time in place of one in multiply-adds"
            for row in self.rows
            if row.slower
        )


def check_modules(formats: Sequence[str] = FORMATS) -> None:
    """Raise unless all that :func:`hand_over` needs is installed; call it before a long training.

    Args:
        formats: As for :func:`hand_over`.

    Raises:
        RuntimeError: A module is not installed.
    """
    for each in formats:
        check_installed(each)
    try:
        matplotlib_or_explain()
        template()
    except ImportError as error:
        raise RuntimeError(str(error)) from error


def hand_over(
    result: ShrinkResult,
    model: keras.Model,
    directory: StrPath,
    formats: Sequence[str] = FORMATS,
    test: Data | None = None,
    input_shape: Sequence[int] | None = None,
    settings: Mapping[str, str] | None = None,
) -> HandedOver:
    """Write a shrunk network with its exports, a card, a figure and a report.

    An export that is not possible does not keep the rest from being written.

    Args:
        result: What :func:`keras_structsparse.shrink` returned.
        model: The network before, compiled.
        directory: A new or empty directory, or one that an earlier call made.
        formats: Of "saved_model", "litert" and "onnx".
        test: Data that chose nothing, to evaluate both networks on.
        input_shape: Shape of one input, where the model leaves it open.
        settings: What else the report says, by name.

    Returns:
        What was written: the files of :meth:`ShrinkResult.save`, ``layers.png`` and
        ``report.html``, which opens without a network connection.

    Raises:
        ImportError: matplotlib or jinja2 is not installed.
        OutputError: The directory holds something else, or cannot be written.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> from keras_structsparse.training.shrink.shrink import shrink
        >>> stack = [keras.layers.Conv2D(8, 3), keras.layers.GlobalAveragePooling2D()]
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), *stack, keras.layers.Dense(2)])
        >>> model.compile("adam", "mse")
        >>> data = np.ones((32, 8, 8, 1)), np.ones((32, 2))
        >>> result = shrink(model, data, multiply_adds=0.5, epochs=2, verbose=0)
        >>> written = hand_over(result, model, Path(tempfile.mkdtemp()), formats=())
        >>> sorted(written.sizes), (written.folder / "report.html").is_file()
        (['layers.png', 'model.keras', 'plan.json'], True)
    """
    folder = result.save(directory, formats=())
    failed = tuple(_exported(result.model, folder, formats))
    rows = rows_of(result, model, test, input_shape, formats)
    figure = comparison_figure(result.comparison)
    save(figure, folder / FIGURE)
    names = ["model.keras", *(FILES[each] for each in formats), "plan.json", "labels.txt", FIGURE]
    sizes = {name: _size(folder / name) for name in names if (folder / name).exists()}
    handed = HandedOver(folder, rows, sizes, failed)
    write_text(folder / CARD, card(result, handed))
    text = page(result, rows, figure, failed, {**sizes}, {**(settings or {})})
    write_text(folder / REPORT, text)
    return handed


def card(result: ShrinkResult, handed: HandedOver) -> str:
    """The model card, with what was measured: Markdown.

    Args:
        result: The result.
        handed: What was written of it.
    """
    known = result.card
    rows = [row for row in handed.rows if f"| {escaped(row.name)} |" not in known]
    lines = [
        "## Measured",
        "",
        "| | before | after | after / before |",
        "| --- | --- | --- | --- |",
        *(f"| {escaped(row.name)} | {row.before} | {row.after} | {row.share} |" for row in rows),
        "",
        f"Times are medians of one example on this machine: {machine()}.",
        "",
        f"![Multiply-adds of every layer]({FIGURE})",
        "",
        "## Files",
        "",
        *(f"- `{name}`: {size:,} bytes" for name, size in handed.sizes.items()),
        *(f"\nNot written: {escaped(text)}" for text in handed.failed),
        *(f"\nWarning: {escaped(text)}" for text in handed.doubts),
    ]
    return known + "\n" + "\n".join(lines) + "\n"


def _exported(model: keras.Model, folder: Path, formats: Sequence[str]) -> Iterator[str]:
    """Export in all formats; yields why one was not possible."""
    for format_ in formats:
        target = folder / FILES[format_]
        try:
            export(model, target, format_)
        except (StructSparseError, RuntimeError) as error:
            yield f"{FILES[format_]}: {' '.join(str(error).split())}"
            if EXPORTERS[format_].suffix:  # Of an earlier network.
                target.unlink(missing_ok=True)


def _size(path: Path) -> int:
    files: Any = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())
