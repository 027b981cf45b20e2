"""Training with surgery on the way: what has become zero is removed before training ends."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from keras_structsparse._typing import Array
from keras_structsparse._validation import positive_int
from keras_structsparse.errors import DeadNetworkError
from keras_structsparse.graph.kernel_axes import kernel_of, plain_kernel, stored
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.estimate import remaining
from keras_structsparse.profiling.profile import profile
from keras_structsparse.regularizers.attachment import regularizers_of
from keras_structsparse.surgery import Costs, prune
from keras_structsparse.surgery.kernel_provenance import Ancestry
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.surgery.plans import plan as read_plan
from keras_structsparse.training.callbacks.multi_fit import MultiFitCallbacks
from keras_structsparse.training.callbacks.stop_on_nan import StopOnNaN
from keras_structsparse.training.callbacks.target_multiply_adds import TargetMultiplyAdds
from keras_structsparse.training.callbacks.weight_keepers import Refusals, check, uses_averages
from keras_structsparse.training.optimizer.distribution import scope_of
from keras_structsparse.training.optimizer_state import carry_optimizer, forget
from keras_structsparse.training.reattachment import check_reattachable, reattach
from keras_structsparse.training.shrinking_schedule import TrainingSection, saving
from keras_structsparse.training.tf_input import build_for_training, fed

NO_HELPERS = Costs(move=0.0, start=1e15)
"""Costs under which surgery never adds an operation: in training, no layer is split, no side of a
sum is spread, and a kernel keeps a larger size where a smaller one would need padding layers."""


@dataclass(frozen=True)
class Shrunk:
    """A network that was pruned during its training.

    Attributes:
        model: The pruned network, compiled.
        ancestry: The kernels of the base architecture that it has.
        history: The metrics of all epochs.
        sections: The training between surgeries: multiply-adds, first epoch and measured times of
            every network.
    """

    model: keras.Model
    ancestry: Ancestry
    history: Mapping[str, Sequence[float]]
    sections: Sequence[TrainingSection]

    def plan(self, tau: float = 1e-3, groups: str = "half_ring", coupled: bool = False) -> Plan:
        """The plan in kernels of the base architecture, read as by :func:`keras_structsparse.plan`.

        Args:
            tau: The threshold on the l2 norms.
            groups: "half_ring" or "ring".
            coupled: Whether kernels that write the same channels are removed together.

        Returns:
            A plan with an entry for every layer of the base architecture that has kernels to
            remove; removed kernels have size 0.
        """
        return self.ancestry.of_base(read_plan(self.model, tau, groups, coupled))


def fit_shrinking(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    *,
    shrink_every: int,
    always: bool = False,
    epochs: int = 1,
    initial_epoch: int = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: Any = "auto",
    ancestry: Ancestry | None = None,
    **options: Any,
) -> Shrunk:
    """Train a model, and remove what is exactly zero every few epochs.

    The zeros are those of :class:`Proximal`. Surgery does not change the outputs; the state of the
    optimizer is carried over, and every layer keeps its share of alpha. Removed kernels cannot
    come back, and the constants that they leave are no longer trained one by one: biases or one
    carrier channel hold them.

    Surgery costs a recompilation. Unless ``always``, it is done only if the remaining steps are
    expected to save more time than that: estimated from the measured time of a step, the removed
    multiply-adds, what earlier surgeries have saved, and the time of the last recompilation.

    Callbacks see one training: ``on_train_begin`` and ``on_train_end`` are called once. After
    surgery, ``set_model`` is called with the smaller network, and ``on_shrink(model, ancestry)``
    if a callback has such a method; the base of the ancestry is the model that the training began
    with. Checkpoints hold the network of the time when they are written.

    Args:
        model: A compiled model with regularizers. It is trained up to the first surgery; use the
            model of the result after that.
        x: As for ``model.fit``.
        y: As for ``model.fit``.
        shrink_every: Epochs between surgeries; there is none after the last epoch.
        always: Whether to do surgery also where it is not expected to save time.
        epochs: As for ``model.fit``.
        initial_epoch: As for ``model.fit``.
        callbacks: As for ``model.fit``.
        verbose: As for ``model.fit``.
        ancestry: The ancestry of the model, if it has been pruned before. By default, the model is
            the base architecture.
        **options: Other arguments of ``model.fit``.

    Returns:
        The network with its ancestry and history.

    Raises:
        DivergedError: The loss is no longer a finite number.
        ModelError: The model has no graph or no convolutions, or the size of a map is open.
        ValueError: An argument is out of its range, the model is not compiled or has no
            regularizers, or a regularizer, the optimizer or a callback does not allow surgery
            during training.

    Examples:
        >>> # kss.attach(model, kss.KernelSize(1e-3), weights="multiply_adds")
        >>> # model.compile(kss.Proximal(keras.optimizers.SGD(0.1, momentum=0.9)), "mse")
        >>> # shrunk = kss.fit_shrinking(model, x, y, epochs=20, shrink_every=2)
        >>> # pruned = kss.prune(shrunk.model, tau=1e-3)
        >>> # plan = shrunk.plan(tau=1e-3)  # in the kernels of the model before
    """
    positive_int("shrink_every", shrink_every)
    _check_compiled(model)
    check(callbacks, REFUSED, "callbacks that allow the network to get smaller")
    found = PrunableLayers.of(model)
    whole = Ancestry.of(found)
    check_reattachable(regularizers_of(found), whole)
    sections = [TrainingSection(profile(found).multiply_adds, initial_epoch)]
    training = MultiFitCallbacks([StopOnNaN(), *callbacks], epochs, verbose)
    now = Shrunk(model, whole, training.history.history, sections)
    inputs, targets, rest = fed(model, x, y, options)
    for start in range(initial_epoch, epochs, shrink_every):
        stop = min(start + shrink_every, epochs)
        training.section = now.sections[-1]
        build_for_training(now.model, x, y)
        spans = {"initial_epoch": start, "epochs": stop}
        now.model.fit(inputs, targets, callbacks=[training], verbose=0, **spans, **rest)
        if now.model.stop_training or stop == epochs:
            break
        now = _next(now, training, stop, None if always else epochs)
    training.finish()
    now.model.history = training.history  # Each fit has left its own.
    return replace(now, ancestry=(ancestry or whole).followed_by(now.ancestry))


def shrink(model: keras.Model) -> tuple[keras.Model, Ancestry]:
    """Remove what is exactly zero from a network in training, so that its training can continue.

    Args:
        model: The compiled network.

    Returns:
        The smaller network, compiled, with the regularizers and the state of the optimizer; and
        its ancestry, with ``model`` as the base.

    Raises:
        DeadNetworkError: The output no longer depends on the input.
    """
    with scope_of(model):
        found = PrunableLayers.of(model)
        pruned = prune(found, read_plan(found, 0.0), costs=NO_HELPERS)
        ancestry = Ancestry.between(model, pruned)
        carry_optimizer(model, reattach(regularizers_of(found), pruned, ancestry))
        forget(pruned, _still(pruned))
    return pruned, ancestry


def _next(now: Shrunk, training: MultiFitCallbacks, epoch: int, epochs: int | None) -> Shrunk:
    """The network to continue with: a smaller one if that is expected to save time.

    Args:
        now: The network.
        training: The training.
        epoch: The next epoch.
        epochs: The number of epochs of the training; None for surgery in any case.
    """
    if epochs is not None and not _pays(now, epoch, epochs):
        return now
    start = time.perf_counter()
    try:
        model, later = shrink(now.model)
    except DeadNetworkError:
        return now  # Its kernels may become nonzero again.
    work = profile(model).multiply_adds
    if work >= now.sections[-1].multiply_adds:
        return now
    ancestry = now.ancestry.followed_by(later)
    training.set_model(model)
    for callback in training.callbacks:
        if hasattr(callback, "on_shrink"):
            callback.on_shrink(model, ancestry)
    section = TrainingSection(work, epoch, time.perf_counter() - start)
    return Shrunk(model, ancestry, now.history, [*now.sections, section])


def _pays(now: Shrunk, epoch: int, epochs: int) -> bool:
    found, section = PrunableLayers.of(now.model), now.sections[-1]
    left = sum(remaining(found, read_plan(found, 0.0).sizes).values())
    steps = len(section.steps) / (epoch - section.epoch) * (epochs - epoch)
    return saving(now.sections, left, steps) > 0


def _still(model: keras.Model) -> dict[int, Array]:
    """Masks of the kernels that are zero and whose batch normalisation has a scale of zero.

    Such a channel is kept for its constant. The optimizer's momentum must not move its kernel: the
    normalisation would scale even a small kernel up.
    """
    found, masks = PrunableLayers.of(model), dict[int, Array]()
    for name, norm in found.scaled_norms.items():
        layer = found.layers[name]
        kernel = plain_kernel(layer)
        alive = kernel.any(axis=tuple(range(kernel.ndim - 1))).astype(kernel.dtype)
        if not alive.all():
            own = stored(layer, alive[None])
            masks |= {id(kernel_of(layer)): own, id(norm.gamma): alive}
    return masks


# --- what does not allow surgery during training ---


def own_training(model: keras.Model) -> str | None:
    """The method of training that the class of a model replaces; None if it replaces none.

    Args:
        model: The model.

    Examples:
        >>> own_training(keras.Sequential())
    """
    for name in ("train_step", "compute_loss"):
        if getattr(type(model), name) is not getattr(keras.Model, name):
            return name
    return None


def _check_compiled(model: keras.Model) -> None:
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        raise ValueError("model: expected a compiled model. Received: one that is not")
    own = own_training(model)
    if own is not None:
        raise ValueError(
            f"model: expected one that trains as Keras does. Received: {type(model).__name__} "
            f"with its own {own}, which the smaller model would lose; surgery makes plain models"
        )
    if uses_averages(optimizer):
        raise ValueError(
            "model: expected an optimizer without use_ema, since averages replace the weights at "
            "the end of every fit. Received: one with use_ema=True; set use_ema=False"
        )
    try:
        keras.saving.deserialize_keras_object(model.get_compile_config())
    except (TypeError, ValueError) as error:
        raise ValueError(
            "model: expected a loss, metrics and an optimizer that Keras can serialize, so that "
            "the smaller model can be compiled with them; see "
            f"keras.saving.register_keras_serializable. Received: {error}"
        ) from error


REFUSED: Refusals = {
    TargetMultiplyAdds: (
        lambda callback: True,
        "it may restore kernels that it has removed",
    ),
    keras.callbacks.EarlyStopping: (
        lambda callback: callback.restore_best_weights,
        "the best weights may be those of a larger network; set restore_best_weights=False",
    ),
    keras.callbacks.BackupAndRestore: (
        lambda callback: True,
        "it restores weights into the base architecture",
    ),
}
"""Callbacks that store weights: whether they do, and why they do not allow surgery."""
