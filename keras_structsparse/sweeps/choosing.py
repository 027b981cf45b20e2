"""Choose a network of a finished sweep by its validation accuracy, and write it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import keras

from keras_structsparse._files import new_directory, write_text
from keras_structsparse._typing import StrPath
from keras_structsparse.export.formats import export, load_model, save_model
from keras_structsparse.models.card import Card
from keras_structsparse.profiling.latency import latency
from keras_structsparse.profiling.pareto import choose, pareto
from keras_structsparse.sweeps.run_directory import Found, Run

CostAndAccuracy = tuple[float, float]


@dataclass(frozen=True)
class Wish:
    """A condition for the network to choose: exactly one of these.

    Attributes:
        max_drop: The cheapest network that loses at most this share of validation accuracy
            against the mean of the dense networks.
        max_multiply_adds: The best network with at most this number of multiply-adds.
        max_latency: The best network that takes at most this time for one example, in ms.
    """

    max_drop: float | None = None
    max_multiply_adds: float | None = None
    max_latency: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) != 1:
            raise ValueError(
                f"wish: expected one of {', '.join(vars(self))}. Received: {given or 'none'}"
            )


def choose_network(run: Run, wish: Wish) -> Found:
    """The network that meets a wish, chosen by its validation accuracy.

    Args:
        run: A run with finished trials.
        wish: The wish.

    Returns:
        The point and its network's file.

    Raises:
        OutputError: The run has no sparse, or no dense, network yet.
        ValueError: No network meets the wish.
    """
    dense, sparse = run.dense_and_sparse()
    reference = fmean(f.point.validation_finetuned for f in dense)
    points = [_point(f) for f in sparse]
    if wish.max_drop is not None:
        return sparse[choose(points, wish.max_drop, reference)]
    if wish.max_multiply_adds is not None:
        limit = wish.max_multiply_adds
        return sparse[_best_within(points, "max_multiply_adds", limit, "{:,.0f}")]
    front = [sparse[i] for i in pareto(points)]
    times = _milliseconds(front)
    points = [(t, f.point.validation_finetuned) for t, f in zip(times, front, strict=True)]
    return front[_best_within(points, "max_latency", wish.max_latency, "{:.3g} ms")]


def hand_over(run: Run, chosen: Found, out: StrPath) -> Path:
    """Write a chosen network: ``model.keras``, ``saved_model``, ``sizes.json`` and its card.

    The card is written twice, as ``card.md`` to read and as ``card.json``.

    Args:
        run: The run.
        chosen: One of its points.
        out: The directory, new or empty or written by an earlier call.

    Returns:
        The directory.

    Raises:
        OutputError: The directory holds something else, or cannot be written.
    """
    folder = new_directory(out, "--out")
    model = load_model(chosen.model)
    save_model(model, folder / "model.keras")
    export(model, folder / "saved_model")
    sizes = {name: list(each) for name, each in chosen.point.sizes.items()}
    write_text(folder / "sizes.json", json.dumps(sizes, indent=1) + "\n")
    described = card(run, chosen, model, folder / "model.keras")
    write_text(folder / "card.md", described.to_markdown())
    write_text(folder / "card.json", described.to_json())
    return folder


def card(run: Run, chosen: Found, model: keras.Model, file: Path) -> Card:
    """The model card: the origin, the costs and the accuracy of a network.

    Args:
        run: The run.
        chosen: The point.
        model: Its network.
        file: The file that it was written to.

    Returns:
        The card.
    """
    point, settings = chosen.point, run.settings
    dense = [found for found in run.found() if not found.trial.alpha]
    dense_time, time = _milliseconds([dense[0], chosen])
    return Card(
        base=settings["model"],
        dataset=settings["dataset"],
        input_shape=tuple(model.inputs[0].shape[1:]),
        penalty=settings["form"],
        alpha=point.alpha,
        tau=point.tau,
        seed=chosen.trial.seed,
        validation=point.validation_finetuned,
        accuracy=point.accuracy_finetuned,
        accuracy_at_surgery=point.accuracy_at_surgery,
        dense_accuracy=fmean(found.point.accuracy_finetuned for found in dense),
        multiply_adds=point.multiply_adds,
        dense_multiply_adds=dense[0].point.multiply_adds,
        params=point.params,
        dense_params=dense[0].point.params,
        latency_ms=round(time, 4),
        dense_latency_ms=round(dense_time, 4),
        machine=f"{platform.machine()}, {os.cpu_count()} cores, {keras.backend.backend()}",
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
    )


def _best_within(
    points: Sequence[CostAndAccuracy], name: str, limit: float | None, how: str
) -> int:
    """The index of the best within a limit, or an error with numbers as a user reads them."""
    least = min(cost for cost, _ in points)
    if limit is not None and limit < least:
        raise ValueError(
            f"{name}: expected at least {how.format(least)}, the least of the run's pruned "
            f"networks. Received: {how.format(limit)}"
        )
    return choose(points, max_cost=limit)


def _point(found: Found) -> CostAndAccuracy:
    return float(found.point.multiply_adds), found.point.validation_finetuned


def _milliseconds(found: Sequence[Found]) -> list[float]:
    """Median milliseconds of each network for one example, measured in turns."""
    networks = {str(i): load_model(f.model) for i, f in enumerate(found)}
    rows = latency(networks, (1,), 200)
    times = {row.name: row.median for row in rows}
    return [times[name] for name in networks]
