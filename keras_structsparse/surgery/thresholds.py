"""The sizes of kernels whose group norms exceed a threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.errors import ModelError
from keras_structsparse.graph import nested_groups
from keras_structsparse.graph.channels.channel_groups import KernelRun
from keras_structsparse.graph.channels.costs import filled
from keras_structsparse.graph.kernel_axes import axes_of, groups_of, kernel_of, plain_shape
from keras_structsparse.graph.prunable_layers import PrunableLayers


def sizes(
    found: PrunableLayers, tau: float, groups: str, coupled: bool, round_to: int = 1
) -> dict[str, tuple[int, ...]]:
    """The size of each kernel: its number of groups with a norm above a threshold (15, 23).

    Args:
        found: The prunable layers of the model.
        tau: The threshold on the l2 norms.
        groups: "half_ring" or "ring".
        coupled: Whether kernels that write the same channels are removed together or not at all.
        round_to: Widths are rounded up to multiples of this number.

    Returns:
        For each prunable layer, by name, the size of each kernel; 0 for a removed one.

    Raises:
        ModelError: A weight is not finite.
    """
    layers = found.layers
    norms = {
        n: layer_norms(n, layer, found.scaled_norms.get(n), groups) for n, layer in layers.items()
    }
    counts = {name: np.sum(own > tau, axis=0) for name, own in norms.items()}
    strength = {name: own[-1] for name, own in norms.items()}
    if coupled:
        joint = _joint_norms(found.channels.joined(list(layers)), strength)
        counts = {
            name: np.where(np.isnan(joint[name]), own, np.where(joint[name] > tau, own.clip(1), 0))
            for name, own in counts.items()
        }
        strength = {n: np.where(np.isnan(joint[n]), own, joint[n]) for n, own in strength.items()}
    counts = {n: _rounded(counts[n], norms[n], strength[n], round_to) for n in layers}
    reached = {
        n: [0, *nested_groups.sizes(plain_shape(layer)[:-2], groups_of(layer, groups))]
        for n, layer in layers.items()
    }
    return {n: tuple(int(reached[n][count]) for count in counts[n]) for n in layers}


def _rounded(counts: Array, norms: Array, strength: Array, round_to: int) -> Array:
    """The numbers of groups, with the strongest removed kernels restored to fill the width.

    Restored kernels keep the groups whose norms reach that of the weakest restored kernel.
    """
    back = restored(counts > 0, strength, round_to)
    level = norms[-1][back].min(initial=np.inf)
    return np.where(back, np.sum(norms >= level, axis=0).clip(1), counts)


def restored(kept: Array, strength: Array, block: int) -> Array:
    """Which removed kernels are restored, so that the width is a multiple of a block.

    Args:
        kept: Whether each kernel is kept anyway (kernels,).
        strength: Norms (kernels,). The strongest kernels are restored first, those of norm 0 never.
        block: The block.

    Returns:
        A mask (kernels,). It is empty if no kernel is kept, or if too few have a norm above 0.

    Examples:
        >>> restored(np.array([True, False, False, False]), np.array([5.0, 1.0, 0.0, 2.0]), 2)
        array([False, False, False,  True])
    """
    width = int(np.sum(kept))
    missing = filled(width, block) - width
    candidates = np.where(kept, 0.0, strength)
    found = np.zeros(len(candidates), bool)
    if width and np.count_nonzero(candidates) >= missing:
        found[np.argsort(-candidates, kind="stable")[:missing]] = True
    return found


def _joint_norms(joined: Sequence[KernelRun], norms: Mapping[str, Array]) -> dict[str, Array]:
    """For each coupled kernel the root mean square of the norms of its group; NaN for others."""
    found = {name: np.full_like(own, np.nan) for name, own in norms.items()}
    for run in joined:
        parts = [norms[name][first : first + run.width] for name, first in run.first]
        for name, first in run.first:
            found[name][first : first + run.width] = np.sqrt(np.mean(np.square(parts), axis=0))
    return found


def layer_norms(name: str, layer: keras.Layer, norm: keras.Layer | None, groups: str) -> Array:
    """The group norms of a layer that are compared with thresholds.

    Args:
        name: The name of the layer, for errors.
        layer: The layer.
        norm: The batch normalisation that is paired with it; None without one.
        groups: "half_ring", "ring" or "kernel".

    Raises:
        ModelError: A weight is not finite.
    """
    gamma = _finite(norm.name, norm.gamma) if norm is not None else None
    kernel = axes_of(layer).plain(_finite(name, kernel_of(layer)))
    return threshold_norms(kernel, gamma, groups_of(layer, groups))


def threshold_norms(kernel: Array, gamma: Array | None, groups: str) -> Array:
    """The group norms that are compared with thresholds, in float64 on every backend.

    Args:
        kernel: Array (*spatial, in, out).
        gamma: Scale (out,) of the paired batch normalisation; None without one.
        groups: "half_ring", "ring" or "kernel".

    Returns:
        The l2 norms (groups, kernels) of the effective kernels ``gamma_j k_j / |k_j|``, or of
        ``k_j`` without a gamma; ``G_1`` first.

    Examples:
        >>> threshold_norms(np.array([[3.0], [4.0]]), np.array([-2.0]), "kernel").round(6).tolist()
        [[2.0]]
    """
    masks = nested_groups.masks(kernel.shape[:-2], groups)
    kernel = np.asarray(kernel).astype(np.float64)
    # In units of each kernel: squares of small and large numbers would be 0 or infinite.
    scale = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)), initial=0.0)
    scale = np.where(scale > np.finfo(np.float64).tiny, scale, 1.0)
    squares = np.square(kernel / scale).sum(axis=-2)
    norms = np.sqrt(masks @ squares.reshape(masks.shape[1], kernel.shape[-1]))
    if gamma is None:
        return norms * scale
    lengths = np.where(norms[-1] > 0, norms[-1], 1.0)
    return norms / lengths * np.abs(np.asarray(gamma).astype(np.float64))


def lengths(kernel: Array) -> Array:
    """The l2 norms (kernels,) of whole kernels (*spatial, in, out)."""
    return threshold_norms(kernel, None, "kernel")[0]


def _finite(name: str, variable: keras.Variable) -> Array:
    value = keras.ops.convert_to_numpy(variable)
    if not np.isfinite(value).all():
        raise ModelError(
            f"Layer '{name}': expected finite weights. "
            f"Received NaN or infinity in '{variable.path}'."
        )
    return value
