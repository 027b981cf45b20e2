"""KernelCount: the number of kernels of every layer, equations (12), (13) and (32)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_structsparse.regularizers.base import GroupSparsityRegularizer


@keras.saving.register_keras_serializable("keras_structsparse")
class KernelCount(GroupSparsityRegularizer):
    """Penalty on the number of kernels of a layer: Omega1, equation (13), or (32) with `power=2`.

    It is the sum of the kernels' norms, the relaxed width `d'_i = sum_j |k_ij|` (12), and makes
    whole kernels zero.

    Kernel variables have the shape (*spatial, in, out), or (in, out) for dense layers and the
    pointwise part of separable convolutions. A regularizer given to the constructor of another
    layer needs `layout`, because it cannot see the layer: without it, it would take the input
    channels of a transposed convolution for its kernels, and all channels of a depthwise
    convolution for one kernel.

    Args:
        alpha: Weight of the penalty, finite and >= 0; `r.alpha` is a variable that can be assigned.
        norm: `"l2"`, `"group_normalized"` (25), `"group_scaled"` (29) or `"linf"`.
        power: 1 for `d'_i`, 2 for its square.
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
        >>> layer = keras.layers.Conv2D(16, 5, kernel_regularizer=KernelCount(1e-3))
        >>> round(float(KernelCount(0.1)(np.ones((2, 2, 1, 3), "float32"))), 3)
        0.6
    """

    _per = "layer"

    def __init__(
        self,
        alpha: float = 1e-4,
        norm: str = "l2",
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
            alpha, norm, "kernel", power, reweight, weight, scale, links, layout, group_weights
        )

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the current value of alpha.

        Returns:
            Dictionary for `from_config`.

        Examples:
            >>> KernelCount(1e-3).get_config()["alpha"]
            0.001
        """
        return {name: x for name, x in super().get_config().items() if name != "groups"}
