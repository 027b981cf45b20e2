"""MultiplyAdds: the multiply-adds of the whole network, equation (34)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Self

import keras
from keras import ops

from keras_structsparse._typing import Tensor
from keras_structsparse._validation import require
from keras_structsparse.regularizers import penalties
from keras_structsparse.regularizers.base import GroupSparsityRegularizer
from keras_structsparse.regularizers.coupling import Links, NormOf, Stream


@keras.saving.register_keras_serializable("keras_structsparse")
class MultiplyAdds(GroupSparsityRegularizer):
    """Penalty on the multiply-adds of a network: Omega3, equation (34); only through `kss.attach`.

    The term of layer i is `r_i c_i d'_{i-1} sum_j s'_ij^2`, with its own output map r_i x c_i,
    its relaxed sizes s' (21), and the relaxed width d' (12) of what it really reads. Channels that
    several layers write because their outputs are added count once: for each the root of the mean
    over the layers of the squared kernel norms. What no regularized kernel writes, such as the
    input of the network, has a constant width.

    As the draft has it, d' and s' are sums of norms: they are widths and sizes where norms are
    about 1, as those of effective kernels are at the start of training.

    With ``reweight=eps`` each norm |k| in them is multiplied by `(1 + eps) m / (|k| + eps m)`, held
    fixed while derivatives are taken, with m = `sum |k|^2 / sum |k|` over the kernels: those that
    stay count nearly alike, whatever their norms, and are hardly shrunk.

    Args:
        alpha: Weight of the penalty, finite and >= 0; `r.alpha` is a variable that can be assigned.
        norm: `"l2"`, `"group_normalized"` (25) or `"group_scaled"` (29).
        groups: `"half_ring"` (18), `"ring"` (19), or `"kernel"` for the whole kernel only.
        reweight: `eps` above, >= 0; 0 is the penalty of the draft.
        weight: Factor of alpha.
        scale: Path of the batch-normalisation gamma paired with the kernel, set by `kss.attach`.
        links: What the layer reads, set by `kss.attach`.

    Raises:
        ValueError: If an argument is invalid.

    Examples:
        >>> import keras_structsparse as kss
        >>> stack = [keras.layers.Conv2D(4, 3, kernel_initializer="ones") for _ in range(2)]
        >>> model = keras.Sequential([keras.Input((8, 8, 2)), *stack])
        >>> model = kss.attach(model, MultiplyAdds(alpha=1.0, groups="kernel"))
        >>> first, second = (float(loss) for loss in model.losses)
        >>> round(first) == 6 * 6 * 2 * 4 * (3 * 3 * 2)
        True
        >>> round(second) == round(4 * 4 * (4 * (3 * 3 * 2) ** 0.5) * 4 * (3 * 3 * 4))
        True
    """

    _per = "kernel"

    def __init__(
        self,
        alpha: float = 1e-9,
        norm: str = "l2",
        groups: str = "half_ring",
        reweight: float = 0.0,
        *,
        weight: float = 1.0,
        scale: str | None = None,
        links: Mapping[str, Any] | None = None,
    ) -> None:
        require("norm", norm, ("l2", "group_normalized", "group_scaled"))
        super().__init__(alpha, norm, groups, 1, reweight, weight, scale, links)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, with the current value of alpha.

        Returns:
            Dictionary for `from_config`.

        Examples:
            >>> MultiplyAdds(1e-8).get_config()["alpha"]
            1e-08
        """
        left_out = ("power", "layout")
        return {name: x for name, x in super().get_config().items() if name not in left_out}

    def cut_to(self, share: float) -> Self:
        """A copy for a layer that has lost kernels of zeros, which have no part in `reweight`.

        Args:
            share: The kernels that are left, over those of the whole layer.

        Returns:
            A regularizer to be bound to its layer.
        """
        return self.bound()

    def slopes(self, norms: Tensor, norm_of: NormOf) -> Tensor:
        """The derivative with respect to the layer's own group norms, the width held fixed.

        Args:
            norms: Group norms (groups, kernels).
            norm_of: Gives the norms of the kernels that feed the layer.

        Returns:
            Tensor (groups, kernels), the same for all groups of a kernel.
        """
        strength = self._strength(norms) * self._width(norms, norm_of)
        return penalties.slopes(norms, self._weights(norms), power=2) * strength

    def read_weights(self, norms: Tensor, norm_of: NormOf) -> list[tuple[Stream, Tensor]]:
        """The streams that the layer reads, and the derivative in the norm of each channel.

        Args:
            norms: Group norms (groups, kernels).
            norm_of: Gives the norms of the kernels that feed the layer.

        Returns:
            Pairs of a stream and a tensor (channels,).
        """
        areas = self._strength(norms) * penalties.value(norms, self._weights(norms), power=2)
        return [(s, areas * self._counts(s, norm_of)) for s in self._require_links().reads]

    def _value(self, norms: Tensor) -> Tensor:
        width = self._width(norms, functools.partial(self.whole_norms, norm=self.norm))
        sizes = penalties.value(norms, self._weights(norms), power=2)
        return self._strength(norms) * width * sizes

    def _weights(self, norms: Tensor) -> Tensor:
        return penalties.counting_weights(norms, self.reweight)

    def _counts(self, stream: Stream, norm_of: NormOf) -> Tensor:
        """What the norm of every channel (channels,) of a stream is multiplied by."""
        return stream.weight * self._weights(stream.norms(norm_of)[None])[0]

    def _width(self, like: Tensor, norm_of: NormOf) -> Tensor:
        """Positions of the output map times the relaxed width of what the layer reads."""
        links = self._require_links()
        parts = [ops.sum(self._counts(s, norm_of) * s.norms(norm_of)) for s in links.reads]
        return sum((ops.cast(part, like.dtype) for part in parts), links.constant)

    def _require_links(self) -> Links:
        if self.links is None:
            raise RuntimeError(
                "MultiplyAdds depends on the layers that feed a layer, so it cannot be given to "
                "one layer alone, or called on a kernel. Use kss.attach(model, MultiplyAdds())."
            )
        return self.links

    def _require_alone(self) -> None:
        self._require_links()
        super()._require_alone()
