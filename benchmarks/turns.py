"""Trainings that take turns, an epoch each: what the machine does meanwhile, it does to all.

Each training has a process of its own, so it computes what it would compute alone; while it is not
its turn, the process waits. Not for TensorFlow: the pipelines that Keras makes of arrays there take
the others' turns for work of their own, and tune themselves by that.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import keras


class Clock(keras.callbacks.Callback):
    """Gives the turn away after every epoch, and counts the seconds of its own turns.

    Args:
        link: To who gives the turns.
    """

    def __init__(self, link: Connection) -> None:
        super().__init__()
        self._link, self._has_turn, self._start = link, False, 0.0
        self.seconds: list[float] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what is done, from the first turn on."""
        if not self._has_turn:
            self._wait()
        self._start = time.perf_counter()
        yield
        self._count()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Let the others go on."""
        self._count()
        self._link.send((False, None))
        self._wait()
        self._start = time.perf_counter()

    def _wait(self) -> None:
        self._link.recv()
        self._has_turn = True

    def _count(self) -> None:
        self.seconds.append(round(time.perf_counter() - self._start, 2))


Training = Callable[[Any, Clock], Any]
"""From a setting to a result; it is not given a turn before it has called for the first one."""


def take_turns(training: Training, settings: Sequence[Any]) -> list[Any]:
    """The results of trainings that go side by side.

    Args:
        training: A function of a module, that other processes can import.
        settings: One for each training.

    Returns:
        The results, in the order of the settings.

    Raises:
        RuntimeError: A training has ended without a result.
    """
    context = multiprocessing.get_context("spawn")
    links = []
    for setting in settings:
        link, end = context.Pipe()
        context.Process(target=_run, args=(training, setting, end), daemon=True).start()
        end.close()
        links.append(link)
    results: dict[int, Any] = {}
    while len(results) < len(links):
        for place, link in enumerate(links):
            if place not in results:
                ended, result = _turn(link)
                results |= {place: result} if ended else {}
    return [results[place] for place in range(len(links))]


def _turn(link: Connection) -> tuple[bool, Any]:
    try:
        link.send(None)
        ended, result = link.recv()
    except (EOFError, ConnectionError) as error:
        raise RuntimeError("a training has ended before it had a result, see above") from error
    return ended, result


def _run(training: Training, setting: Any, link: Connection) -> None:
    link.send((True, training(setting, Clock(link))))
