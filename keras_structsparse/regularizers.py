"""Structured-sparsity regularizers: the number of kernels of a layer, and their sizes."""

from __future__ import annotations

from typing import Any

import keras

from keras_structsparse.structured import Structured

__all__ = ["KernelCount", "KernelSize", "Structured"]


@keras.saving.register_keras_serializable("keras_structsparse")
class KernelCount(Structured):
    """Penalty on the number of kernels of a layer: Omega1, equation (13), or (32) with `power=2`.

    The sum of the kernels' norms, `d'_i = sum_j |k_ij|` (12): whole kernels go to zero.

    Args:
        alpha: Weight of the penalty, finite and >= 0; `r.alpha` is a variable that can be assigned.
        norm: `"l2"`, `"group_normalized"` (25), `"group_scaled"` (29) or `"linf"`.
        power: 1 for `d'_i`, 2 for its square.
        reweight: `eps` of the group weights `eps m / (norm + eps m)`, m the mean norm of the
            layer's kernels, which spare the kernels that stay; 0 weighs all alike.
        weight: The layer's share of alpha, set by `kss.attach`.
        scale: Path of the batch-normalisation gamma paired with the kernel, set by `kss.attach`.

    Raises:
        ValueError: If an argument is invalid.

    Example:
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
    ) -> None:
        super().__init__(alpha, norm, "kernel", power, reweight, weight, scale)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, with the current value of alpha.

        Returns:
            Dictionary for `from_config`.

        Example:
            >>> KernelCount(1e-3).get_config()["alpha"]
            0.001
        """
        return {name: x for name, x in super().get_config().items() if name != "groups"}


@keras.saving.register_keras_serializable("keras_structsparse")
class KernelSize(Structured):
    """Penalty on the sizes of a layer's kernels: Omega2, equation (22), or (33) with `power=2`.

    The sum over kernels of `s'_ij = sum_n |k_ij(G_n)|` (21), with nested groups from the outermost
    half ring to the whole kernel: kernels get smaller from the outside in, down to nothing.

    Args:
        alpha: Weight of the penalty, finite and >= 0; `r.alpha` is a variable that can be assigned.
        norm: `"l2"`, `"group_normalized"` (25), `"group_scaled"` (29) or `"linf"`.
        groups: `"half_ring"` (18), `"ring"` (19), or `"kernel"` for the whole kernel only.
        power: 1 for `s'_ij`, 2 for its square.
        reweight: `eps` of the group weights `eps m / (norm + eps m)`, m the mean norm of the
            layer's kernels, which spare the groups that stay; 0 weighs all alike.
        weight: The layer's share of alpha, set by `kss.attach`.
        scale: Path of the batch-normalisation gamma paired with the kernel, set by `kss.attach`.

    Raises:
        ValueError: If an argument is invalid.

    Example:
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
    ) -> None:
        super().__init__(alpha, norm, groups, power, reweight, weight, scale)
