"""`shrink`: the smallest network within a budget, from a trained one and its data."""

from __future__ import annotations

import dataclasses
import random
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_structsparse._files import check_room, new_directory
from keras_structsparse._validation import MOST_EPOCHS, count, positive_int
from keras_structsparse.export.reloading import check_reloads
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.profile import compare
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.surgery.provenance import copy_recorded
from keras_structsparse.training.shrink.arguments import (
    check_model,
    check_settings,
    checked_validation,
)
from keras_structsparse.training.shrink.budget import Budget, check_budget
from keras_structsparse.training.shrink.checkpoints import SEED, Checkpoints, fingerprint
from keras_structsparse.training.shrink.finishing import (
    checked_surgery,
    doubts,
    evaluated,
    recalibrated,
    timing_of,
    verification_from_json,
    verification_to_json,
)
from keras_structsparse.training.shrink.latency import Latency, as_json
from keras_structsparse.training.shrink.method import ShrinkMethod
from keras_structsparse.training.shrink.metrics import Judge
from keras_structsparse.training.shrink.progress import EpochLines
from keras_structsparse.training.shrink.rate_trial import (
    TRIED,
    has_trial,
    rates_of,
    tried_rates,
    tuning_optimizer,
)
from keras_structsparse.training.shrink.removal import inner_kernels, remove
from keras_structsparse.training.shrink.result import ShrinkResult, best_rate
from keras_structsparse.training.shrink.smallest import bounded, chosen, search
from keras_structsparse.training.shrink.stages import Job, compile_options, rebuild, tune
from keras_structsparse.training.training_data import Data, TrainingData

STORED = 7
"""Sizes of a network that a workdir holds: its weights, the moments of Adam, the rebuilt one, and
the states of the learning rates that are tried, which are those of the smaller network."""


def shrink(
    model: keras.Model,
    train: Data,
    validation: Data | None = None,
    *,
    multiply_adds: float | None = None,
    params: float | None = None,
    latency: Latency | None = None,
    max_drop: float | None = None,
    epochs: int = 20,
    batch_size: int = 32,
    optimizer: keras.optimizers.Optimizer | None = None,
    method: ShrinkMethod | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    workdir: str | Path | None = None,
    verbose: Any = "auto",
) -> ShrinkResult:
    """Shrink a trained network to a budget, and train it so that it keeps its accuracy.

    In the first half of the epochs, groups of kernel entries are removed little by little: those
    that the loss needs least for what they cost. What the loss needs is measured on the training
    data, as the squared first-order change of the loss without the group. The kept entries take
    over what they can predict of what the removed ones computed. Then the network is rebuilt
    without them, which changes no output, and trained for the other half, of which some
    epochs find the learning rate. In both halves the unpruned network is the teacher. At the end
    the statistics of normalisations are estimated again if that makes the loss on the validation
    data smaller.

    The loss, the metrics and their weights are those that the model was compiled with; the model
    itself is not changed.

    Args:
        model: A compiled functional or built Sequential model.
        train: Arrays (inputs, targets), a ``tf.data.Dataset`` or a ``keras.utils.PyDataset``.
        validation: Data of any of these kinds, to judge the network before and after; needed for
            ``max_drop``.
        multiply_adds: The share of the multiply-adds (10) that may be left, in (0, 1].
        params: The share of the parameters that may be left, in (0, 1].
        latency: The time that a run of the exported network may take, in milliseconds or as a share
            of the time before: ``kss.Latency(share=0.5, runtime="onnxruntime")``. Whole kernels are
            removed, in blocks as the runtime computes them, and networks are exported and timed to
            find the widths.
        max_drop: Find the smallest network whose metric is at most this much worse, as far as the
            validation data can tell: the upper confidence bound of the drop must be within it. The
            metric is the first of the model's metrics, or its loss. Five networks are trained.
        epochs: Number of epochs in all, at least 2.
        batch_size: Examples per step, for arrays.
        optimizer: The optimizer to train with. By default Adam, with a learning rate that suits the
            size of the weights and falls to 0: it does not harm a trained network. For tuning,
            higher rates are tried (:class:`ShrinkMethod`).
        method: What else can be chosen.
        callbacks: Callbacks of both stages; their model is the one that is trained.
        workdir: A directory to store the state in after every epoch. If the call is killed, the
            same call goes on from there.
        verbose: 0 for no lines about the progress.

    Returns:
        The smaller network, with its plan, its comparison, its history and its card.

    Raises:
        DivergedError: The loss is no longer a finite number.
        ModelError: The model has no graph, or no kernels that can be removed; no network that was
            tried is within ``max_drop``; or, with a ``workdir``, its file cannot be loaded again.
        OutputError: ``workdir`` belongs to another model or to other settings, or has no room.
        RuntimeError: The runtime of a latency is not installed.
        ValueError: An argument is out of its range, the model is not compiled, not exactly one
            budget is given, or ``max_drop`` without validation data.

    Examples:
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 1)),
        ...     keras.layers.Conv2D(8, 3, activation="relu"),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(2, activation="softmax"),
        ... ])
        >>> model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> data = rng.random((64, 8, 8, 1)), rng.integers(0, 2, 64)
        >>> result = shrink(model, data, data, multiply_adds=0.5, epochs=2, verbose=0)
        >>> 0.3 < result.comparison.multiply_adds_fraction <= 0.5
        True
    """
    budget = Budget(multiply_adds=multiply_adds, params=params, latency=latency, max_drop=max_drop)
    check_model(model)
    method = ShrinkMethod() if method is None else method
    check_settings(optimizer, method, callbacks, workdir)
    method.removal_epochs(epochs)
    check_budget(budget, method)
    inner_kernels(PrunableLayers.of(model), method.groups or "kernel")
    if budget.max_drop is not None and validation is None:
        raise ValueError("validation: expected data to measure max_drop on. Received: None")
    batch_size = positive_int("batch_size", batch_size)
    job = Job(
        model,
        TrainingData.of(train, batch_size),
        checked_validation(validation, batch_size),
        batch_size,
        count("epochs", epochs, MOST_EPOCHS),
        optimizer,
        budget,
        method,
        (*callbacks, *([EpochLines(epochs)] if verbose else [])),
        Checkpoints(None, {}),
        method.known_factor if optimizer is None else None,
        random.getrandbits(63),  # Keras' set_random_seed seeds this.
    )
    if workdir is not None:
        size = STORED * check_reloads(model, "model")
        check_room(new_directory(workdir, "workdir"), size, "the state of a shrinking", "workdir")
    before = evaluated(model, job)
    find = _to_share if budget.max_drop is None else _smallest
    result = find(job, before, workdir)
    for text in result.warnings:
        warnings.warn(text, stacklevel=2)
    return result


def _to_share(job: Job, before: Mapping[str, float], workdir: str | Path | None) -> ShrinkResult:
    """Shrink to a share of the cost."""
    job = dataclasses.replace(job, checkpoints=Checkpoints(workdir, _settings(job)))
    state, teacher = job.checkpoints.load(), copy_model(job.model)
    if state is not None:
        job = dataclasses.replace(job, seed=state.known.get(SEED, job.seed))
    if state is None or state.stage == "remove":
        student = copy_recorded(job.model)
        plan, history = remove(job, student, teacher, state)
        pruned, verification = rebuild(job, student, plan), checked_surgery(student, plan, job)
        known = {
            SEED: job.seed,
            "plan": plan.to_json(),
            "verification": verification_to_json(verification),
        }
        job.checkpoints.save_pruned(pruned)
        state = job.checkpoints.save("tune", job.removal, pruned, history, known)
    else:
        pruned = job.checkpoints.load_pruned()
    if has_trial(job) and TRIED not in state.known:
        state = tried_rates(job, pruned, teacher, state)
    optimizer = tuning_optimizer(job, state)
    history = tune(job, pruned, teacher, state, job.epochs, optimizer)
    pruned.compile(optimizer=optimizer, **compile_options(job.model))
    after = recalibrated(pruned, job, evaluated(pruned, job))
    result = ShrinkResult(
        pruned,
        Plan.from_json(state.known["plan"]),
        compare(job.model, pruned),
        history,
        before,
        after,
        Judge.of(before) if before else None,
        verification_from_json(state.known["verification"]),
        rates=rates_of(state),
        timing=timing_of(pruned, job),
    )
    return dataclasses.replace(result, warnings=tuple(doubts(result, job)))


def _smallest(job: Job, before: Mapping[str, float], workdir: str | Path | None) -> ShrinkResult:
    """Find the smallest network within a drop."""
    parent = None if workdir is None else new_directory(workdir, "workdir")

    factors: list[float] = []  # Learning rates are tried once, on the first network.

    def attempt(share: float) -> ShrinkResult:
        folder = None if parent is None else parent / f"share-{share:.4f}"
        own = dataclasses.replace(
            job, budget=job.budget.at(share), factor=factors[0] if factors else None
        )
        tried = _to_share(own, before, folder)
        if tried.rates:
            factors.append(best_rate(tried.rates).factor)
        return dataclasses.replace(tried, drop_bound=bounded(job, tried))

    return chosen(job, search(attempt, job.budget.largest))


def _settings(job: Job) -> Mapping[str, Any]:
    """What the result depends on, as JSON takes it."""
    optimizer = job.optimizer and keras.saving.serialize_keras_object(job.optimizer)
    given = ("loss", "loss_weights", "metrics", "weighted_metrics")
    compiled = [job.model.get_compile_config().get(name) for name in given]
    return {
        "model": fingerprint(job.model),
        "budget": {**vars(job.budget), "latency": as_json(job.budget.latency)},
        # Networks do not depend on the confidence, only which of them is chosen.
        "method": {n: value for n, value in vars(job.method).items() if n != "confidence"},
        "epochs": job.epochs,
        "factor": job.factor,
        "steps": job.data.steps,
        "batch_size": job.batch_size,
        "optimizer": str(optimizer and optimizer["config"]),
        "loss and metrics": str(compiled),
    }
