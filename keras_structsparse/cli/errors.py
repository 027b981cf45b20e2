"""Expected errors: one line on the error stream and exit status 2, with no traceback."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from keras_structsparse.errors import StructSparseError

PACKAGE = "keras_structsparse"
BAD_INPUT = 2
INTERRUPTED = 130

GOES_ON = {
    "sweep": "the same command goes on with the trials that are missing",
    "shrink": "the same command goes on if it had --workdir, and begins again if not",
}
BEGINS_AGAIN = "nothing of it is left; the same command begins again"
"""What an interrupted command says."""

REPEATED = 3.0
"""Seconds after which an interrupt is repeated: longer than files need to be closed."""

_TOLD = threading.Event()
"""Whether a signal has told this process to end."""

# typer brings its own click or imports that of the system; this is UsageError in both.
USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]


class Commands(TyperGroup):
    """A group of commands whose expected errors are one line on stderr and exit status 2."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the options before the command."""
        with one_line_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Parse the rest and run the command."""
        try:
            with one_line_errors(bool(ctx.params.get("traceback"))):
                return super().invoke(ctx)
        except BaseException as error:
            # A library may have made another error of the interrupt, which was raised inside it.
            if not (isinstance(error, KeyboardInterrupt) or _TOLD.is_set()):
                raise
            _repeat(0)
            said = GOES_ON.get(str(ctx.invoked_subcommand), BEGINS_AGAIN)
            typer.echo(f"interrupted: {said}", err=True)
            raise typer.Exit(INTERRUPTED) from error


def interrupt_when_told() -> None:
    """Let SIGTERM end a command as Ctrl-C does; a second signal ends it at once."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_DFL)
    _TOLD.set()
    _repeat(REPEATED)
    sys.unraisablehook = _unless_interrupted
    raise KeyboardInterrupt


def _unless_interrupted(lost: Any) -> None:
    """Say what Python ignores, but not of an interrupt: it is repeated."""
    if lost.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(lost)


def _repeat(seconds: float) -> None:
    """Interrupt again and again; not with 0 seconds.

    An interrupt is lost if it comes while Python runs a callback whose errors it ignores, such as
    one of a weak reference.
    """
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.signal(signal.SIGALRM, _again)
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)


def _again(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


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

    So does a lack of memory: it is the input that is too large.

    A ValueError or RuntimeError counts as a check of this package if it was raised in it. One from
    Keras or another library keeps its traceback, and so does every TypeError.
    """
    if isinstance(error, BrokenPipeError | typer.Exit | typer.Abort):
        return False
    if isinstance(error, USAGE_ERROR | StructSparseError | OSError | MemoryError):
        return True
    if isinstance(error, _exhausted()):
        return True
    return isinstance(error, ValueError | RuntimeError) and _origin(error) == PACKAGE


def _exhausted() -> tuple[type[Exception], ...]:
    """What TensorFlow and torch raise when memory is short, on a GPU too."""
    tensorflow, torch = sys.modules.get("tensorflow"), sys.modules.get("torch")
    found = [] if tensorflow is None else [tensorflow.errors.ResourceExhaustedError]
    return tuple(found if torch is None else [*found, torch.cuda.OutOfMemoryError])


def _origin(error: Exception) -> str:
    """The package that an error was raised in."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    module = str(frames[-1].f_globals.get("__name__", "")) if frames else ""
    return module.partition(".")[0]


def _one_line(error: Exception) -> str:
    message = getattr(error, "format_message", error.__str__)()
    if isinstance(error, (MemoryError, *_exhausted())):
        message = f"expected enough memory for what was asked for. Received: {message[:300]}"
    return " ".join(message.split()) or type(error).__name__
