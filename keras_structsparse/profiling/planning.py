"""Plans at a threshold on norms, or for a share of the cost, without a training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse._validation import fraction
from keras_structsparse.errors import ModelError
from keras_structsparse.graph.channels.splitting import check_realize
from keras_structsparse.graph.kernel_axes import groups_of, plain_kernel
from keras_structsparse.graph.prunable_layers import ModelLike, PrunableLayers
from keras_structsparse.profiling.group_prices import priced
from keras_structsparse.profiling.group_selection import Sizes
from keras_structsparse.profiling.inner_layers import inner_layers
from keras_structsparse.profiling.kernel_reader import reached_sizes
from keras_structsparse.profiling.work_share import UNITS, WorkShare, plan_of
from keras_structsparse.regularizers.saliency import Saliency
from keras_structsparse.surgery import plans, thresholds
from keras_structsparse.surgery.plans import Plan

TAU = 1e-3
"""The threshold where neither a threshold nor a share is given."""

TIES = 1e-6
"""The weight of the kernels' own norms, which decide between equal effective kernels."""

TOLERANCE = 0.01
"""A share this much above the one that was asked for is reported."""


def plan(
    model: ModelLike,
    tau: float | None = None,
    groups: str = "half_ring",
    coupled: bool = False,
    round_to: int = 1,
    *,
    multiply_adds: float | None = None,
    params: float | None = None,
    saliency: Saliency | None = None,
    realize: str = "auto",
) -> Plan:
    """Read a plan off a trained model: at a threshold (eqs. 15, 23), or for a share of its cost.

    At a threshold, the size of a kernel is the number of its groups with a norm above ``tau``. If
    the only reader of a layer is a batch normalisation, the norms are those of the effective
    kernels ``gamma_j k_j / |k_j|``, since the normalisation cancels the length of the kernel
    itself. It suits models that were trained with a penalty.

    For a share, groups are removed in the order of what is lost for each unit of cost, until at
    most the share is left: their squared norms in units of the mean over the kernels of the layer,
    or the second order of a saliency. It suits any trained model; the outputs change, so train the
    pruned model. :func:`keras_structsparse.shrink` removes groups in a training instead.

    Args:
        model: A functional or built Sequential model.
        tau: The threshold on the l2 norms; 0 removes only groups that are exactly zero. By default
            1e-3 without a share.
        groups: "half_ring" for the sizes 0..s, "ring" for 0 and every second size; for a share,
            "kernel" too. With a saliency, its groups are used. For a share, kernels get smaller
            only with ``realize="split"``: elsewhere a half-ring of one kernel saves nothing.
        coupled: For a threshold: whether kernels that write the same channels of a sum are removed
            together: if the root mean square of their norms is at most ``tau``. Otherwise each has
            at least size 1.
        round_to: For a threshold: the number of kept kernels of a layer is rounded up to a multiple
            of this number. The strongest removed kernels are restored, with the groups whose norms
            reach that of the weakest restored kernel. Kernels of zeros, and kernels of layers that
            are removed completely, are never restored; if too few kernels remain, none is.
        multiply_adds: The share of the multiply-adds (10) that may be left, in (0, 1].
        params: The share of the parameters that may be left, in (0, 1].
        saliency: For a share: what :func:`keras_structsparse.saliency` measured on data.
        realize: For a share: how the network will be built, as for
            :func:`keras_structsparse.prune`.

    Returns:
        The plan, with an entry for every ungrouped, depthwise, transposed or separable convolution
        and dense layer. Kernels of transposed convolutions are kept whole or removed; those of
        separable convolutions are the pointwise ones, of size 1.

    Raises:
        ModelError: The model has no graph or no convolutions, or a weight that is not finite; or
            the saliency is that of another model.
        ValueError: ``tau`` is negative or not finite, ``groups`` or ``realize`` is unknown, or
            ``round_to`` is not a whole number >= 1; or arguments exclude each other.

    Examples:
        >>> import keras
        >>> layer = keras.layers.Conv2D(2, 1, use_bias=False, name="conv")
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), layer])
        >>> layer.set_weights([np.array([[[[0.5, 0.01]]]])])
        >>> plan(model, tau=0.1).sizes
        {'conv': (1, 0)}
        >>> stack = [keras.layers.Conv2D(8, 3), keras.layers.Conv2D(8, 3), keras.layers.Flatten()]
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), *stack, keras.layers.Dense(2)])
        >>> from keras_structsparse.profiling.profile import compare
        >>> from keras_structsparse.surgery import prune
        >>> pruned = prune(model, plan(model, multiply_adds=0.5))
        >>> compare(model, pruned).multiply_adds_fraction <= 0.5
        True
    """
    shares = {"multiply_adds": multiply_adds, "params": params}
    given = {name: value for name, value in shares.items() if value is not None}
    _check_arguments(given, tau, coupled, round_to, saliency)
    if not given:
        return plans.plan(model, TAU if tau is None else tau, groups, coupled, round_to)
    ((unit, share),) = given.items()
    target, _ = fraction(unit, share), check_realize(realize)
    found = PrunableLayers.of(model)
    plans.check_convolutions(found)
    kind = groups if saliency is None else saliency.groups
    now = {name: _present(found, name, kind) for name in found.layers}
    losses = _by_norms(found, kind) if saliency is None else _by_saliency(found, saliency)
    if realize != "split":  # elsewhere a half-ring of one kernel saves nothing by itself
        kind, losses = "kernel", {name: lost[-1:] for name, lost in losses.items()}
    counted = WorkShare(found, realize, unit)
    sizes = counted.reduce(priced(counted, losses, now, kind), now, target) if losses else now
    _warn(counted, sizes, target)
    return plan_of(sizes)


def _check_arguments(
    given: Mapping[str, float],
    tau: float | None,
    coupled: bool,
    round_to: int,
    saliency: Saliency | None,
) -> None:
    """Raise a ValueError, which names both, if two arguments exclude each other."""
    if len(given) > 1:
        raise ValueError(f"plan: expected one of {', '.join(UNITS)}. Received: {dict(given)}")
    if not given:
        if saliency is not None:
            raise ValueError(
                f"saliency: expected {' or '.join(UNITS)} beside it, the share to leave. Received "
                "neither"
            )
        return
    (name,) = given
    of_threshold = {
        "tau": tau,
        "coupled": coupled or None,
        "round_to": (round_to, None)[round_to == 1],
    }
    for other, value in of_threshold.items():
        if value is not None:
            raise ValueError(
                f"plan: expected {name} or {other}, since {other} is for plans at a threshold. "
                f"Received: {name}={given[name]!r} and {other}={value!r}"
            )


def _norms(found: PrunableLayers, name: str, groups: str) -> Array:
    """The norms (groups, kernels) of the effective kernels of a layer."""
    layer, norm = found.layers[name], found.scaled_norms.get(name)
    return thresholds.layer_norms(name, layer, norm, groups)


def _present(found: PrunableLayers, name: str, groups: str) -> Array:
    """The sizes of the kernels of a layer as they are: nonzero supports."""
    norms = _own_norms(found, name, groups)
    return reached_sizes(found, name, groups)[(norms > 0).sum(axis=0)]


def _by_norms(found: PrunableLayers, groups: str) -> dict[str, Array]:
    """Squared norms in units of their mean over the kernels of the layer, which have no scale."""
    losses = {}
    for name in inner_layers(found):
        losses[name] = _scaled(_norms(found, name, groups))
        # Scales of normalisations that were never trained are all equal.
        losses[name] += TIES * _scaled(_own_norms(found, name, groups))
    return losses


def _scaled(norms: Array) -> Array:
    squares = np.square(norms)
    mean = float(squares[-1].mean())
    return squares / mean if mean > 0 else squares


def _own_norms(found: PrunableLayers, name: str, groups: str) -> Array:
    """The norms (groups, kernels) of the kernels themselves."""
    layer = found.layers[name]
    return thresholds.threshold_norms(plain_kernel(layer), None, groups_of(layer, groups))


def _by_saliency(found: PrunableLayers, saliency: Saliency) -> dict[str, Array]:
    """The second order of the layers that may be removed."""
    shapes = {name: (len(reached_sizes(found, name, saliency.groups)) - 1) for name in found.layers}
    losses = {}
    for name, lost in saliency.second.items():
        if name not in found.layers or lost.shape != (shapes[name], _width(found, name)):
            raise ModelError(
                f"saliency: expected that of model '{found.model.name}'. Received: one with "
                f"{lost.shape[1]} kernels of {lost.shape[0]} groups in a layer '{name}'"
            )
        losses[name] = lost
    return losses


def _width(found: PrunableLayers, name: str) -> int:
    return int(plain_kernel(found.layers[name]).shape[-1])


def _warn(counted: WorkShare, sizes: Sizes, target: float) -> None:
    """Warn if too much is left."""
    left = counted.estimate(sizes)
    if left > target + TOLERANCE:
        unit = counted.unit.replace("_", "-")
        warnings.warn(
            f"plan: expected {target:.1%} of the {unit}. Received {left:.1%}: no other kernel can "
            "be removed, or none saves anything when it is removed alone, as in residual streams. "
            'realize="split" and kss.shrink find more',
            stacklevel=3,
        )
