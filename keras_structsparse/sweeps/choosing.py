"""Choose a network of a finished sweep, by its validation accuracy, and hand it over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import keras

from keras_structsparse._files import StrPath, new_directory, write_text
from keras_structsparse.export import export, load_model, save_model
from keras_structsparse.frontier import choose, pareto
from keras_structsparse.latency import latency
from keras_structsparse.sweeps.store import Found, Run

Point = tuple[float, float]


@dataclass(frozen=True)
class Wish:
    """What the network is to be: exactly one of these.

    Attributes:
        max_drop: The cheapest network that loses at most this share of validation accuracy
            against the mean of the dense networks.
        max_multiply_adds: The best network with at most so many multiply-adds.
        max_latency: The best network that takes at most so many milliseconds for one example.
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
    """The network that meets a wish, chosen by what the validation split says.

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
    if wish.max_latency is None:
        points = [_point(f) for f in sparse]
        return sparse[choose(points, wish.max_drop, reference, wish.max_multiply_adds)]
    front = [sparse[i] for i in pareto([_point(f) for f in sparse])]
    times = _milliseconds(front)
    points = [(t, f.point.validation_finetuned) for t, f in zip(times, front, strict=True)]
    return front[choose(points, max_cost=wish.max_latency)]


def hand_over(run: Run, chosen: Found, out: StrPath) -> Path:
    """Write a chosen network: ``model.keras``, ``saved_model``, ``sizes.json``, ``card.md``.

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
    write_text(folder / "card.md", card(run, chosen, model))
    return folder


def card(run: Run, chosen: Found, model: keras.Model) -> str:
    """The model card: where a network comes from and what it does.

    Args:
        run: The run.
        chosen: The point.
        model: Its network.

    Returns:
        Markdown.
    """
    point, settings = chosen.point, run.settings
    dense = [f.point for f in run.found() if not f.trial.alpha]
    rows = {
        "base network": settings["model"],
        "data set": settings["dataset"],
        "penalty": ", ".join(f"{key} {value}" for key, value in settings["form"].items()),
        "alpha": f"{point.alpha:g}",
        "tau": f"{point.tau:g}",
        "seed": chosen.trial.seed,
        "multiply-adds": f"{point.multiply_adds:,} ({point.multiply_adds_fraction:.1%} of dense)",
        "parameters": f"{point.params:,} (dense {dense[0].params:,})",
        "validation accuracy": f"{point.validation_finetuned:.2%}",
        "test accuracy": f"{point.accuracy_finetuned:.2%} (at surgery "
        f"{point.accuracy_at_surgery:.2%}, dense {fmean(p.accuracy_finetuned for p in dense):.2%})",
        "input": ", ".join(str(tuple(tensor.shape)) for tensor in model.inputs),
    }
    lines = ["# Pruned network", "", "| | |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in rows.items()]
    closing = "Chosen by validation accuracy; the test split was only reported on."
    return "\n".join([*lines, "", closing, ""])


def _point(found: Found) -> Point:
    return float(found.point.multiply_adds), found.point.validation_finetuned


def _milliseconds(front: Sequence[Found]) -> list[float]:
    """Median milliseconds for one example, measured in turns."""
    networks = {str(i): load_model(f.model) for i, f in enumerate(front)}
    rows = latency(networks, (1,), 200)
    times = {row.name: row.median for row in rows}
    return [times[name] for name in networks]
