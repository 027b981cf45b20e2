"""Try learning rates on the rebuilt network, and tune it with the best.

How fast a network may learn depends on what it knows: one with pretrained weights is spoiled by a
rate that another one, trained from scratch, needs. Nothing that can be read off weights tells.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import keras

from keras_structsparse.errors import DivergedError
from keras_structsparse.training.shrink.checkpoints import State
from keras_structsparse.training.shrink.finishing import evaluated, recalibrated
from keras_structsparse.training.shrink.method import suited_rate
from keras_structsparse.training.shrink.result import TriedRate, best_rate
from keras_structsparse.training.shrink.stages import TRYING, Job, Logs, tune

TRIED = "tried"
"""What a state calls the rates that were tried."""


class _Trying(keras.callbacks.Callback):
    """Says in the logs which rate is tried."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write the entry."""
        if logs is not None:
            logs[TRYING] = self.rate


def has_trial(job: Job) -> bool:
    """Whether learning rates are tried.

    Args:
        job: The shrinking.
    """
    own = job.optimizer is None and job.validation is not None and job.factor is None
    return own and job.method.trial_epochs(job.epochs) > 0


def tried_rates(job: Job, pruned: keras.Model, teacher: keras.Model, state: State) -> State:
    """Train the rebuilt network for some epochs with each rate, and take the best.

    Each rate begins with the same network and the same state of Adam, and falls to 0 at the end of
    its own trial, since a network at a high rate is worse than what it has learned. The one with
    the smallest validation loss is trained further. Rates rise, and the first that is no better
    than the one before ends the trial.

    Args:
        job: The shrinking, for which :func:`has_trial`.
        pruned: The network.
        teacher: A copy of the model.
        state: The state at the end of the first stage.

    Returns:
        The state of the best network, after the epochs of all trials. It knows which rates were
        tried.

    Raises:
        DivergedError: The training diverged with every rate.
    """
    length, usual = job.method.trial_epochs(job.epochs), _rate_after_removal(job)
    epochs, history, best = state.epochs, state.history, state
    tried: list[TriedRate] = []
    for factor in job.method.rates:
        begin = dataclasses.replace(state, epochs=epochs, history=history)
        epochs += length
        own = dataclasses.replace(job, checkpoints=job.checkpoints.inside(f"rate-{factor:g}"))
        metrics: Mapping[str, float] = {}
        try:
            history = _trained(own, pruned, teacher, begin, epochs, usual * factor)
            metrics = recalibrated(pruned, job, evaluated(pruned, job))
        except DivergedError:
            if best is state and factor == job.method.rates[-1]:
                raise
        this = TriedRate(factor, usual * factor, length, dict(metrics))
        better = all(this.loss < each.loss for each in tried) and this.loss < math.inf
        tried.append(this)
        if better:
            best = own.checkpoints.save("tune", epochs, pruned, history, state.known)
        elif best is not state:
            break
    known = {**state.known, TRIED: [dataclasses.asdict(each) for each in tried]}
    best = dataclasses.replace(best, epochs=epochs, history=history, known=known)
    job.checkpoints.store(best)
    return best


def rates_of(state: State) -> tuple[TriedRate, ...]:
    """The rates that were tried before a state.

    Args:
        state: The state.
    """
    return tuple(TriedRate(**each) for each in state.known.get(TRIED, ()))


def tuning_optimizer(job: Job, state: State) -> keras.optimizers.Optimizer:
    """The optimizer of the tuning: with the best rate that was tried, as far as one was.

    Args:
        job: The shrinking.
        state: A state of the tuning.
    """
    tried = rates_of(state)
    factor = best_rate(tried).factor if tried else job.factor
    if factor is None:
        return job.new_optimizer()
    length = tried[0].epochs if tried else 0
    left = job.epochs - job.removal - len(tried) * length
    return _falling(job, _rate_after_removal(job) * factor, job.removal + length, left)


def _trained(
    job: Job, pruned: keras.Model, teacher: keras.Model, begin: State, stop: int, rate: float
) -> Logs:
    """Train with a rate; if that was interrupted before, the rest. The logs of all epochs."""
    optimizer = _falling(job, rate, job.removal, stop - begin.epochs)
    state = job.checkpoints.load() or begin
    return tune(job, pruned, teacher, state, stop, optimizer, [_Trying(rate)])


def _rate_after_removal(job: Job) -> float:
    """The usual learning rate, which falls with a cosine, at the end of the first stage."""
    begin = suited_rate(job.model, job.data.steps * job.epochs)
    return begin * _cosine(job.removal / job.epochs)


def _falling(job: Job, rate: float, over: int, left: int) -> keras.optimizers.Optimizer:
    """An optimizer whose rate is this after some epochs, and 0 after some more.

    The schedule is Keras' own, so that the network can be loaded without this package. It goes by
    the steps of the optimizer, which has taken those of the first epochs already.
    """
    begin = rate / _cosine(over / (over + left))
    steps = job.data.steps * (over + left)
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(begin, steps))


def _cosine(part: float) -> float:
    """What is left of a rate after a part of its epochs."""
    return 0.5 * (1.0 + math.cos(math.pi * part))
