"""What a shrinking returns."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from keras_structsparse._files import new_directory, write_text
from keras_structsparse._typing import StrPath
from keras_structsparse.export.formats import save_model
from keras_structsparse.export.markdown import escaped, fenced
from keras_structsparse.export.verified import export
from keras_structsparse.profiling.summaries import Comparison
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.surgery.provenance import copy_recorded
from keras_structsparse.surgery.verification import Verification
from keras_structsparse.training.shrink.drop_bound import DropBound
from keras_structsparse.training.shrink.latency import Timing
from keras_structsparse.training.shrink.metrics import Judge


@dataclass(frozen=True)
class TriedRate:
    """A learning rate that was tried on the rebuilt network.

    Attributes:
        factor: The multiple of the usual one.
        rate: The learning rate of Adam at the start; it fell to 0 with a cosine.
        epochs: The number of epochs.
        metrics: The validation metrics after them; empty if the training diverged.
    """

    factor: float
    rate: float
    epochs: int
    metrics: Mapping[str, float]

    @property
    def loss(self) -> float:
        """The validation loss; infinite if it is not a number."""
        found = self.metrics.get("loss", math.inf)
        return math.inf if math.isnan(found) else found


def best_rate(tried: Sequence[TriedRate]) -> TriedRate:
    """The rate with the smallest validation loss.

    Args:
        tried: The rates, at least one.

    Examples:
        >>> tried = [TriedRate(1, 1e-4, 2, {"loss": 0.5}), TriedRate(4, 4e-4, 2, {"loss": 0.3})]
        >>> best_rate(tried).rate
        0.0004
    """
    return min(tried, key=lambda each: each.loss)


@dataclass(frozen=True, eq=False)
class ShrinkResult:
    """A network that was shrunk to a budget.

    Attributes:
        model: The smaller network, a plain Keras model, compiled as the model before.
        plan: The kernels that are left, and their sizes.
        comparison: The costs before and after, layer by layer.
        history: The metrics of every epoch; ``share`` is the planned share of the cost.
        before: The validation metrics of the model before; empty without validation data.
        after: Those of the smaller network.
        judge: The metric that judges both; None without validation data.
        verification: The float64 comparison of the rebuilt network with the masked one; None where
            the backend cannot compute in float64.
        warnings: What the user should know, such as a budget that was not met.
        classes: The names of the classes, if they are known.
        drop_bound: For a largest drop: how large the drop may be, by the validation data.
        rates: The learning rates that were tried on the rebuilt network, in this order; the one
            with the smallest loss tuned it. Empty where none were tried.
        timing: For a latency: the time before and after, as measured.
    """

    model: keras.Model
    plan: Plan
    comparison: Comparison
    history: Mapping[str, Sequence[float]]
    before: Mapping[str, float]
    after: Mapping[str, float]
    judge: Judge | None
    verification: Verification | None
    warnings: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    drop_bound: DropBound | None = None
    rates: tuple[TriedRate, ...] = ()
    timing: Timing | None = None

    @property
    def drop(self) -> float:
        """How much worse the validation metric is; NaN without validation data."""
        return float("nan") if self.judge is None else self.judge.drop(self.before, self.after)

    @property
    def card(self) -> str:
        """The model card, in Markdown."""
        return "\n".join(_card(self)) + "\n"

    def save(self, directory: StrPath, formats: Sequence[str] = ("saved_model",)) -> Path:
        """Write the network, its exports, its plan and its card.

        Args:
            directory: A new or empty directory, or one that an earlier call made.
            formats: Of "saved_model", "litert" and "onnx".

        Returns:
            The directory with ``model.keras`` (not compiled), ``plan.json``, ``card.md``,
            ``history.json`` and one export for each format; ``labels.txt`` if the names of the
            classes are known.

        Raises:
            OutputError: The directory holds something else, or cannot be written.
            RuntimeError: A module that a format needs is not installed.
        """
        folder = new_directory(directory, "directory")
        # A copy is not compiled: the moments of the optimizer are as large as the network.
        save_model(copy_recorded(self.model), folder / "model.keras")
        for format_ in formats:
            export(self.model, folder / FILES[format_], format_)
        write_text(folder / "plan.json", self.plan.to_json())
        history = {name: list(values) for name, values in self.history.items()}
        write_text(folder / "history.json", json.dumps(history, indent=1) + "\n")
        write_text(folder / "card.md", self.card)
        if self.classes:
            write_text(folder / "labels.txt", "\n".join(self.classes) + "\n")
        return folder


FILES = {"saved_model": "saved_model", "litert": "model.tflite", "onnx": "model.onnx"}
"""Names of the exports in the directory."""


def _card(result: ShrinkResult) -> list[str]:
    """The lines of the model card."""
    found = result.comparison
    lines = [
        "# A network that was shrunk with keras_structsparse",
        "",
        "| | before | after | after / before |",
        "| --- | --- | --- | --- |",
        _row("multiply-adds", *found.multiply_adds),
        _row("parameters", *found.params),
    ]
    if (timing := result.timing) is not None:
        times = f"{timing.before:.3f} | {timing.after:.3f} | {timing.share:.1%}"
        lines.append(f"| milliseconds ({escaped(timing.where)}) | {times} |")
    for name, before in result.before.items():
        after = f"{result.after[name]:.4f}"
        lines.append(f"| validation {escaped(name)} | {before:.4f} | {after} | |")
    if result.classes:
        lines += ["", f"Classes: {', '.join(map(escaped, result.classes))}."]
    if result.drop_bound is not None and result.judge is not None:
        name = result.judge.metric
        lines += [
            "",
            f"The drop of {escaped(name)} on validation data is {result.drop:.4g}. On new data of "
            f"the same kind it is {result.drop_bound}.",
        ]
    if result.verification is not None:
        lines += ["", f"Surgery: {escaped(result.verification)}."]
    lines += _rates(result)
    lines += [f"\nWarning: {escaped(text)}" for text in result.warnings]
    return [*lines, "", *fenced(str(found))]


def _rates(result: ShrinkResult) -> list[str]:
    """The table of the learning rates that were tried."""
    if not result.rates:
        return []
    chosen = best_rate(result.rates)
    names = list(chosen.metrics)
    lines = [
        "",
        f"Learning rates tried for tuning, {chosen.epochs} epochs each, on validation data; "
        f"{chosen.rate:.2g} was chosen:",
        "",
        f"| rate | {' | '.join(map(escaped, names))} |",
        f"| --- |{' --- |' * len(names)}",
    ]
    for each in result.rates:
        values = (f"{each.metrics[n]:.4f}" if n in each.metrics else "diverged" for n in names)
        lines.append(f"| {each.rate:.2g} | {' | '.join(values)} |")
    return lines


def _row(name: str, before: int, after: int) -> str:
    return f"| {name} | {before:,} | {after:,} | {after / max(before, 1):.1%} |"
