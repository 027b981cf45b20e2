"""KernelSize: the sizes of all kernels, equations (20) to (22) and (33)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_structsparse.regularizers.base import GroupSparsityRegularizer


@keras.saving.register_keras_serializable("keras_structsparse")
class KernelSize(GroupSparsityRegularizer):
    """Penalty on the sizes of a layer's kernels: Omega2, equation (22), or (33) with `power=2`.

    It is the sum over kernels of the relaxed size `s'_ij = sum_n |k_ij(G_n)|` (21), with nested
    groups from the outermost half-ring to the whole kernel. Kernels shrink from the outside in,
    until the whole kernel is zero.

    Kernel variables have the shape (*spatial, in, out), or (in, out) for dense layers and the
    pointwise part of separable convolutions. A regularizer given to the constructor of another
    layer needs `layout`, because it cannot see the layer: without it, it would take the input
    channels of a transposed convolution for its kernels, and all channels of a depthwise
    convolution for one kernel.

    Args:
        alpha: Weight of the penalty, finite and >= 0; `r.alpha` is a variable that can be assigned.
        norm: `"l2"`, `"group_normalized"` (25), `"group_scaled"` (29) or `"linf"`.
        groups: `"half_ring"` (18), `"ring"` (19), or `"kernel"` for the whole kernel only.
        power: 1 for `s'_ij`, 2 for its square.
        reweight: `eps` of the group weights `eps m / (norm + eps m)`, m the mean norm of the
            layer's kernels: large groups are shrunk less; 0 gives all groups the weight 1.
        weight: The layer's share of alpha, set by `kss.attach`.
        scale: Path of the batch-normalisation gamma paired with the kernel, set by `kss.attach`.
        links: What the penalty must know of other layers, set by `kss.attach`.
        layout: `"plain"`; `"transposed"` for `kernel_regularizer` of transposed convolutions,
            `"depthwise"` for `depthwise_regularizer` of depthwise and separable convolutions.
        group_weights: Factors (groups, kernels) of the norms, set by `kss.attach`.

    Raises:
        ValueError: If an argument is invalid.

    Examples:
        >>> import numpy as np
        >>> layer = keras.layers.Conv2D(16, 5, kernel_regularizer=KernelSize(1e-3))
        >>> kernel = np.zeros((3, 3, 1, 1), "float32")
        >>> kernel[1, 1] = 3.0
        >>> round(float(KernelSize(0.1)(kernel)), 3)
        0.3
    """

    _per = "kernel"

    def __init__(
        self,
        alpha: float = 1e-4,
        norm: str = "l2",
        groups: str = "half_ring",
        power: int = 1,
        reweight: float = 0.0,
        *,
        weight: float = 1.0,
        scale: str | None = None,
        links: Mapping[str, Any] | None = None,
        layout: str = "plain",
        group_weights: Sequence[Sequence[float]] | None = None,
    ) -> None:
        super().__init__(
            alpha, norm, groups, power, reweight, weight, scale, links, layout, group_weights
        )
