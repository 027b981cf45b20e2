"""A budget in time: how long one run of the exported network may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from keras_structsparse._validation import (
    MOST_THREADS,
    RUNTIMES,
    count,
    fraction,
    one_of,
    positive_int,
    positive_number,
    set_checked,
)

if TYPE_CHECKING:
    from keras_structsparse.export.runtimes import Runtime


@dataclass(frozen=True)
class Latency:
    """How long one run of a network may take, in the runtime that it is exported for.

    Attributes:
        share: The share of the time of the network before, in (0, 1]; or give ``ms``.
        ms: Milliseconds.
        runtime: "onnxruntime", "litert", or "keras": the backend of Keras in this process.
        threads: Number of threads of a run; "keras" has those that its backend was started with.
        batch_size: Number of examples in a run.

    Raises:
        ValueError: Not exactly one of ``share`` and ``ms`` is given, or a value is out of its
            range.

    Examples:
        >>> str(Latency(ms=4, runtime="litert"))
        '4 ms (litert, 1 example, 1 thread)'
    """

    share: float | None = None
    ms: float | None = None
    runtime: str = field(default="onnxruntime", metadata={"choices": RUNTIMES})
    threads: int = 1
    batch_size: int = field(default=1, metadata={"option": "--run-batch-size"})

    def __post_init__(self) -> None:
        if (self.share is None) == (self.ms is None):
            received = f"share={self.share!r}, ms={self.ms!r}"
            raise ValueError(f"latency: expected share or ms. Received: {received}")
        set_checked(
            self,
            share=None if self.share is None else fraction("share", self.share),
            ms=None if self.ms is None else positive_number("ms", self.ms),
            runtime=one_of("runtime", self.runtime, RUNTIMES),
            threads=count("threads", self.threads, MOST_THREADS),
            batch_size=positive_int("batch_size", self.batch_size),
        )

    @property
    def place(self) -> Runtime:
        """The runtime with its threads and its batches."""
        from keras_structsparse.export.runtimes import Runtime

        return Runtime(self.runtime, self.threads, self.batch_size)

    def of(self, before: float) -> float:
        """The share that may be left.

        Args:
            before: The time of the network before, in milliseconds.
        """
        if self.ms is not None:
            return min(self.ms / before, 1.0)
        assert self.share is not None
        return self.share

    def __str__(self) -> str:
        what = f"{self.ms:g} ms" if self.share is None else f"{self.share:.1%} of the time"
        plural = ["s" * (number > 1) for number in (self.batch_size, self.threads)]
        examples = f"{self.batch_size} example{plural[0]}"
        return f"{what} ({self.runtime}, {examples}, {self.threads} thread{plural[1]})"


@dataclass(frozen=True)
class Timing:
    """The measured latency of a network before and after.

    Attributes:
        before: Of the network before, in milliseconds.
        after: Of the smaller network.
        latency: What was asked for, with the runtime.
    """

    before: float
    after: float
    latency: Latency

    @property
    def share(self) -> float:
        """The share of the time that is left."""
        return self.after / self.before

    @property
    def allowed(self) -> float:
        """The share that was asked for."""
        return self.latency.of(self.before)

    @property
    def where(self) -> str:
        """The runtime, as a user reads it."""
        return str(self.latency).partition("(")[2].rstrip(")")


def as_json(latency: Latency | None) -> Mapping[str, Any] | None:
    """A budget in time as JSON takes it."""
    return None if latency is None else dict(vars(latency))
