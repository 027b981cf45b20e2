"""After the training: evaluate, check, recalibrate, and say what is in doubt."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras

from keras_structsparse.graph.batch_norm_statistics import reestimate_batch_norm
from keras_structsparse.graph.left_out import described
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.surgery.verification import Verification, verify
from keras_structsparse.training.shrink.latency import Timing
from keras_structsparse.training.shrink.result import ShrinkResult
from keras_structsparse.training.shrink.stages import Job
from keras_structsparse.training.training_data import joined_inputs

TOLERANCE = 0.01
"""A share this much above the budget is reported."""

COLLAPSE = 0.1
"""A metric that is worse by this share of its value is reported."""

SLOWER = 0.05
"""A time that is above the budget by this part of it is reported."""

TIMED_RUNS = 100
"""Timed runs of both networks at the end."""

RECALIBRATION = 2048
"""Examples from which the statistics of normalisations are estimated again."""


def checked_surgery(student: keras.Model, plan: Plan, job: Job) -> Verification | None:
    """The float64 check of the surgery; None on a backend that computes in float32 only."""
    try:
        return verify(student, plan, realize=job.realize)
    except RuntimeError:
        return None


def verification_to_json(verification: Verification | None) -> Mapping[str, Any] | None:
    """A verification as JSON takes it."""
    return None if verification is None else dataclasses.asdict(verification)


def verification_from_json(stored: Mapping[str, Any] | None) -> Verification | None:
    """The verification that :func:`verification_to_json` stored."""
    if stored is None:
        return None
    tuples: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in stored.items()
    }
    return Verification(**tuples)


def evaluated(model: keras.Model, job: Job) -> dict[str, float]:
    """The metrics on the validation data; empty without any."""
    if job.validation is None:
        return {}
    x, y = job.validation if isinstance(job.validation, tuple) else (job.validation, None)
    size = {"batch_size": job.batch_size} if y is not None else {}
    found = model.evaluate(x, y, return_dict=True, verbose=0, **size)
    return {name: float(value) for name, value in found.items()}


def recalibrated(model: keras.Model, job: Job, before: Mapping[str, float]) -> Mapping[str, float]:
    """Estimate the statistics of normalisations again, if that lowers the loss."""
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    if not norms or not before:
        return before
    weights = [norm.get_weights() for norm in norms]
    reestimate_batch_norm(model, _some_inputs(job))
    after = evaluated(model, job)
    if after["loss"] <= before["loss"]:
        return after
    for norm, values in zip(norms, weights, strict=True):
        norm.set_weights(values)
    return before


def _some_inputs(job: Job) -> Any:
    """Some training inputs, as arrays nested as the model takes them."""
    drawn: list[tuple[Any, ...]] = []
    count = 0
    for batch in job.data.some_batches(job.data.steps, job.batch_size, job.rng(2)):
        drawn.append(batch)
        count += len(keras.tree.flatten(batch[0])[0])
        if count >= RECALIBRATION:
            break
    return joined_inputs(drawn)


def timing_of(model: keras.Model, job: Job) -> Timing | None:
    """The time of a smaller network beside that of the network before; None without a latency.

    Args:
        model: The smaller network.
        job: The shrinking.
    """
    if job.budget.latency is None:
        return None
    networks = {"before": job.model, "after": model}
    before, after = (row.median for row in job.budget.latency.place.latency(networks, TIMED_RUNS))
    return Timing(before, after, job.budget.latency)


def doubts(result: ShrinkResult, job: Job) -> list[str]:
    """What the user should know about the network."""
    said = []
    left = getattr(result.comparison, f"{job.budget.unit}_fraction")
    if job.budget.share is not None and left > job.budget.share + TOLERANCE:
        text = (
            f"shrink: expected {job.budget}. Received {left:.1%}: the kernels that can be removed "
        )
        rest = described(result.comparison.left_out)
        end = f". Layers that cannot be planned: {rest}" if rest else ""
        said.append(f"{text}are not enough{end}")
    timing = result.timing
    if timing is not None and timing.share > (1.0 + SLOWER) * timing.allowed:
        said.append(
            f"shrink: expected {timing.latency}. Received: {timing.after:.3g} ms, "
            f"{timing.share:.1%} of the {timing.before:.3g} ms before. Use a machine without other "
            "work, or allow more"
        )
    if result.judge is not None:
        name = result.judge.metric
        value = abs(result.before[name])
        if not result.drop <= COLLAPSE * max(value, 1e-12):
            said.append(
                f"shrink: {name} changed from {result.before[name]:.4g} to "
                f"{result.after[name]:.4g} at {left:.1%} of the "
                f"{job.budget.unit.replace('_', '-')}. Leave a larger share, or train for more "
                "epochs"
            )
    if result.verification is not None and not result.verification:
        said.append(f"shrink: {result.verification}")
    return said
