"""What the commands say and where they write: errors of one line, paths, progress, tables.

Nothing here imports Keras at module level: help must come at once.
"""

from __future__ import annotations

import contextlib
import dis
import os
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from typer.core import TyperGroup

from keras_structsparse._files import unlisted
from keras_structsparse.errors import OutputError, StructSparseError

if TYPE_CHECKING:
    import keras

    from keras_structsparse.surgery.plans import Plan
    from keras_structsparse.sweeps import Found

Advance = Callable[[str], "keras.callbacks.Callback"]
"""From what is trained now to a callback that counts its epochs."""

PACKAGE = "keras_structsparse"
BAD_INPUT = 2
WIDTH = 150

# typer brings its own click or imports that of the system; this is UsageError in both.
USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]


def console() -> Console:
    """Standard output, wide enough for tables where it is no terminal."""
    terminal = Console(highlight=False)
    if terminal.is_terminal or "COLUMNS" in os.environ:
        return terminal
    return Console(highlight=False, width=WIDTH)


# --- errors ---


class Commands(TyperGroup):
    """A group of commands whose expected errors are one line on stderr and exit status 2."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the options before the command."""
        with one_line_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Parse the rest and run the command."""
        with one_line_errors(bool(ctx.params.get("traceback"))):
            return super().invoke(ctx)


@contextlib.contextmanager
def one_line_errors(with_traceback: bool = False) -> Iterator[None]:
    """Turn expected errors into one line on stderr and exit status 2; let others pass.

    Args:
        with_traceback: Whether to show the traceback too.

    Raises:
        typer.Exit: After an expected error.
    """
    try:
        yield
    except Exception as error:
        if not is_expected(error):
            raise
        if with_traceback:
            typer.echo("".join(traceback.format_exception(error)), err=True, nl=False)
        typer.echo(f"error: {_one_line(error)}", err=True)
        raise typer.Exit(BAD_INPUT) from error


def is_expected(error: Exception) -> bool:
    """Whether an error tells of bad input: a usage error, a file's, or a check of this package.

    A ValueError that Keras or a mistake of ours causes is none: it keeps its traceback.
    """
    if isinstance(error, BrokenPipeError | typer.Exit | typer.Abort):
        return False
    if isinstance(error, USAGE_ERROR | StructSparseError | OSError):
        return True
    return isinstance(error, ValueError | TypeError | RuntimeError) and _is_raised_here(error)


def _is_raised_here(error: Exception) -> bool:
    """Whether a ``raise`` statement of this package, not a call that failed, is the origin."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last is not None and _is_raise(last)


def _is_raise(entry: TracebackType) -> bool:
    module = str(entry.tb_frame.f_globals.get("__name__", ""))
    instruction = entry.tb_frame.f_code.co_code[entry.tb_lasti]
    return module.partition(".")[0] == PACKAGE and dis.opname[instruction] == "RAISE_VARARGS"


def _one_line(error: Exception) -> str:
    message = getattr(error, "format_message", error.__str__)()
    return " ".join(message.split()) or type(error).__name__


# --- paths ---


def check_new_file(path: Path, option: str, suffix: str, force: bool) -> None:
    """Raise unless a file can be written; nothing is written.

    Args:
        path: The file.
        option: The option that gave it.
        suffix: How its name must end.
        force: Whether an existing file may be replaced.

    Raises:
        OutputError: The name ends otherwise, the file exists, or its folder cannot be written.
    """
    expected = f"{option}: expected a new file whose name ends in {suffix}"
    if path.suffix != suffix:
        raise OutputError(f"{expected}. Received: {path}")
    if path.is_dir():
        raise OutputError(f"{expected}. Received a directory: {path}")
    if path.exists() and not force:
        raise OutputError(f"{expected}. Received: {path}, which exists; --force replaces it")
    _check_writable(path, option)


def check_new_directory(path: Path, option: str, force: bool) -> None:
    """Raise unless a directory can be written; nothing is written.

    Args:
        path: The directory: it must not exist, or be empty.
        option: The option that gave it.
        force: Whether a directory that holds nothing but an earlier export may be replaced.

    Raises:
        OutputError: The directory holds something else, or cannot be written.
    """
    expected = f"{option}: expected a new or empty directory"
    if path.exists() and not path.is_dir():
        raise OutputError(f"{expected}. Received a file: {path}")
    if held := unlisted(path):
        raise OutputError(f"{expected}. Received: {path}, which holds '{held[0]}'")
    if path.is_dir() and any(path.iterdir()) and not force:
        raise OutputError(f"{expected}. Received: {path}, an export; --force replaces it")
    _check_writable(path, option)


def _check_writable(path: Path, option: str) -> None:
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise OutputError(
            f"{option}: expected a path that can be written. Received: {path} "
            f"({parent}: {error.strerror})"
        ) from error


# --- progress ---


@contextlib.contextmanager
def epoch_progress(epochs: int, steps: int) -> Iterator[keras.callbacks.Callback]:
    """A callback that shows a bar for the epoch that runs and prints a line for each that is over.

    Where standard output is no terminal there are only the lines.

    Args:
        epochs: Number of epochs.
        steps: Number of steps of an epoch.

    Yields:
        The callback.
    """
    import keras

    out = console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    options: dict[str, Any] = {"console": out, "transient": True, "disable": not out.is_terminal}
    with Progress(*columns, TimeRemainingColumn(), **options) as bar:
        task = bar.add_task("", total=steps)

        def begin(epoch: int, logs: Any = None) -> None:
            bar.reset(task, description=f"epoch {epoch + 1}/{epochs}")

        def end(epoch: int, logs: Mapping[str, float]) -> None:
            out.print(_epoch_line(epoch, epochs, logs), markup=False)

        yield keras.callbacks.LambdaCallback(
            on_epoch_begin=begin,
            on_epoch_end=end,
            on_train_batch_end=lambda batch, logs=None: bar.advance(task),
        )


def _epoch_line(epoch: int, epochs: int, logs: Mapping[str, float]) -> str:
    share = logs.get("multiply_adds_fraction")
    return (
        f"epoch {epoch + 1:>{len(str(epochs))}}/{epochs}  loss {logs['loss']:.4f}  "
        f"accuracy {logs['accuracy']:.4f}  validation accuracy {logs['val_accuracy']:.4f}"
        + ("" if share is None else f"  multiply-adds {share:.1%}")
    )


@contextlib.contextmanager
def stage_progress(out: Console, epochs: int) -> Iterator[Advance]:
    """One bar over the epochs of several trainings; only their names where it is no terminal.

    Args:
        out: Where to print.
        epochs: Number of epochs of all trainings.

    Yields:
        What names the next training and gives its callback.
    """
    import keras

    columns = (TextColumn("{task.description:<34}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, disable=not out.is_terminal) as bar:
        task = bar.add_task("", total=epochs)

        def advance(stage: str) -> keras.callbacks.Callback:
            bar.update(task, description=stage)
            if not out.is_terminal:
                out.print(stage)
            return keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs=None: bar.advance(task)
            )

        yield advance


class TrialBars:
    """A bar over the trials of a sweep and one over the epochs that run; none without a terminal.

    What :class:`keras_structsparse.sweeps.progress.Progress` describes.

    Args:
        out: Where to print.
    """

    def __init__(self, out: Console) -> None:
        columns = (TextColumn("{task.description:<40}"), BarColumn(), MofNCompleteColumn())
        options: dict[str, Any] = {"transient": True, "disable": not out.is_terminal}
        self._out, self._bar = (
            out,
            Progress(*columns, TimeRemainingColumn(), console=out, **options),
        )

    def begin(self, trials: int) -> None:
        """Show the bars."""
        self._trials = self._bar.add_task("trials", total=trials)
        self._epochs = self._bar.add_task("")
        self._bar.start()

    def stage(self, name: str, epochs: int) -> Sequence[keras.callbacks.Callback]:
        """Count the epochs of a training."""
        import keras

        self._bar.reset(self._epochs, description=name, total=epochs)
        return [
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs=None: self._bar.advance(self._epochs)
            )
        ]

    def finished(self, line: str) -> None:
        """Count a trial and print a line."""
        self._bar.advance(self._trials)
        self._out.print(line, markup=False, soft_wrap=True)

    def end(self) -> None:
        """Take the bars away."""
        self._bar.stop()


# --- tables ---


def plan_table(plan: Plan, title: str) -> Table:
    """How many kernels of each layer have which size.

    Args:
        plan: The plan.
        title: Title of the table.
    """
    table = Table("layer", title=title)
    table.add_column("kernels", justify="right")
    table.add_column("left", justify="right")
    table.add_column("sizes left: number x size")
    for name, sizes in plan.sizes.items():
        counts = sorted(Counter(size for size in sizes if size).items(), reverse=True)
        text = ", ".join(f"{count} x {size}" for size, count in counts) or "layer removed"
        table.add_row(name, str(len(sizes)), str(plan.widths[name]), text)
    return table


def sweep_table(found: Sequence[Found]) -> Table:
    """The networks of a sweep.

    Args:
        found: Its points.
    """
    table = Table()
    headings = ("alpha", "seed", "tau", "multiply-adds", "of dense", "params")
    for heading in (*headings, "validation", "test at surgery", "test"):
        table.add_column(heading, justify="right")
    for trial, point in ((entry.trial, entry.point) for entry in found):
        table.add_row(
            f"{trial.alpha:g}" if trial.alpha else "dense",
            str(trial.seed),
            f"{point.tau:g}",
            f"{point.multiply_adds:,}",
            f"{point.multiply_adds_fraction:.1%}",
            f"{point.params:,}",
            f"{point.validation_finetuned:.1%}",
            f"{point.accuracy_at_surgery:.1%}",
            f"{point.accuracy_finetuned:.1%}",
        )
    return table
