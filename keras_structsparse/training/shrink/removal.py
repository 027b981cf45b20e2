"""The first stage of a shrinking: remove groups gradually, down to a share of the cost or time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras

from keras_structsparse.errors import ModelError
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.group_prices import SINGLE, Blocks, JointKernels, joint_kernels
from keras_structsparse.profiling.group_selection import LayerGroups, Sizes
from keras_structsparse.profiling.inner_layers import inner_layers, read_depthwise
from keras_structsparse.profiling.work_share import WorkShare
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.training.callbacks.gradual_pruning import GradualPruning, present_sizes
from keras_structsparse.training.compensation import Compensation
from keras_structsparse.training.distilling import Distilling
from keras_structsparse.training.grouped_kernels import GroupedKernel, grouped_kernels
from keras_structsparse.training.measured_saliency import Measured, Measurement
from keras_structsparse.training.optimizer.masked import Masked
from keras_structsparse.training.shrink.checkpoints import SEED, State, restore
from keras_structsparse.training.shrink.latency_share import Goal, LatencyShare, find_goal
from keras_structsparse.training.shrink.stages import Job, Logs, compile_options

GOAL = "goal"
"""What a state calls what the removal heads for."""


def inner_kernels(found: PrunableLayers, groups: str) -> dict[str, GroupedKernel]:
    """The kernels that may be removed, with their groups, by name of the layer.

    Args:
        found: The prunable layers of the model.
        groups: "half_ring", "ring" or "kernel".

    Raises:
        ModelError: There are none.
    """
    kernels = grouped_kernels(found, inner_layers(found), groups)
    if not kernels:
        raise ModelError(
            f"Model '{found.model.name}': expected trainable convolutions or dense layers before "
            "its last one, so that some of their kernels can be removed. Received none"
        )
    return kernels


def remove(
    job: Job, student: keras.Model, teacher: keras.Model, state: State | None
) -> tuple[Plan, Logs]:
    """Remove groups gradually, until the budget is met.

    Args:
        job: The shrinking.
        student: A copy of the model; it is trained, and left compiled with its optimizer.
        teacher: Another copy.
        state: The state after an epoch of this stage, to continue from it; None to begin.

    Returns:
        The plan of what is left, and the logs.

    Raises:
        ModelError: No kernel can be removed.
    """
    found = PrunableLayers.of(student)
    kernels = inner_kernels(found, job.groups)
    if job.budget.latency is not None:  # Blocks of kernels go with those of depthwise layers.
        apart = read_depthwise(found)
        kernels = {name: own for name, own in kernels.items() if name not in apart}
    inner = job.new_optimizer()
    optimizer = Masked(inner, kernels)
    trained = Distilling(student, teacher, job.method.distillation)
    trained.compile(optimizer=optimizer, **compile_options(job.model))
    optimizer.build(trained.trainable_variables)
    if state is not None:
        restore(trained, state)
    compensation = Compensation.of(found, kernels)
    joint = joint_kernels(found, kernels)
    options = compile_options(job.model)
    measurement = Measurement(student, kernels, options, compensation, joint)

    def measure(before: int) -> Measured:
        batches, rng = job.method.measured_batches, job.rng(1, before)
        return measurement.on(job.data, batches, job.batch_size, job.groups, rng)

    removal = _removal(job, found, state, partial(measure, 0), joint)
    begin = state or State("remove", 0, (), {}, {SEED: job.seed, **removal.known})
    pruning = GradualPruning(
        kernels,
        optimizer,
        measure,
        removal.share,
        target=removal.target,
        groups=job.groups,
        joint=joint,
        compensation=compensation,
        losses=begin.losses,
        blocks=removal.blocks,
        last=removal.last,
    )
    history = job.fit(trained, begin, job.removal, [pruning], pruning.losses)
    student.compile(optimizer=inner, **compile_options(job.model))
    return pruning.plan, history


@dataclass(frozen=True)
class _Removal:
    """What a removal of groups heads for.

    Attributes:
        share: Counts the cost.
        target: The share to leave.
        blocks: How many kernels are removed together.
        last: The last removal; None for one to the target.
        known: What is stored of it.
    """

    share: WorkShare
    target: float
    blocks: Blocks = SINGLE
    last: Callable[[Mapping[str, LayerGroups], Sizes], Sizes] | None = None
    known: Mapping[str, Any] = field(default_factory=dict)


def _removal(
    job: Job,
    found: PrunableLayers,
    state: State | None,
    measure: Callable[[], Measured],
    joint: Sequence[JointKernels],
) -> _Removal:
    """What the removal heads for: a share of the cost, or of the time as it is measured."""
    share = WorkShare(found, job.realize, job.budget.unit)
    if job.budget.latency is None:
        assert job.budget.share is not None
        return _Removal(share, job.budget.share)
    timed = LatencyShare(found, job.realize, job.budget.latency.place, job.model)
    timed.measured(job.model)
    allowed = job.budget.latency.of(timed.before)
    if state is None:
        measured = measure()
        together = dict(zip(joint, measured.joint.tolist(), strict=True))
        sizes = present_sizes(found, job.groups)
        goal = find_goal(timed, measured.saliency.second, sizes, together, allowed)
    else:
        goal = Goal.from_json(state.known[GOAL])

    def last(layers: Mapping[str, LayerGroups], sizes: Sizes) -> Sizes:
        timed.rebuilt(sizes)
        return timed.reduce(layers, sizes, allowed)

    return _Removal(share, goal.multiply_adds, goal.blocks, last, {GOAL: goal.to_json()})
