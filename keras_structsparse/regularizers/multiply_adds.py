"""MultiplyAdds: the multiply-adds of the whole network, equation (34)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Self

import keras
from keras import ops

from keras_structsparse._typing import Tensor
from keras_structsparse._validation import one_of
from keras_structsparse.regularizers import penalties
from keras_structsparse.regularizers.base import GroupSparsityRegularizer
from keras_structsparse.regularizers.coupling import ChannelGroup, CouplingSpec, NormOf


@keras.saving.register_keras_serializable("keras_structsparse")
class MultiplyAdds(GroupSparsityRegularizer):
    """Penalty on the multiply-adds of a network: Omega3, equation (34); only through `kss.attach`.

    The term of layer i is `r_i c_i d'_{i-1} sum_j s'_ij^2`, with its output map of r_i x c_i
    positions, its relaxed kernel sizes s' (21), and the relaxed width d' (12) of the channels that
    it reads. A channel that several layers write, because their outputs are added, counts once:
    with the root mean square over these layers of the kernel norms. Channels that no regularized
    kernel writes, such as the input of the network, have a constant width. A depthwise kernel reads
    one channel.

    As in the paper, d' and s' are sums of norms. They approximate widths and sizes if norms are
    about 1, as those of effective kernels are at the start of training.

    With ``reweight=eps`` each norm |k| in them is multiplied by `(1 + eps) m / (|k| + eps m)`, with
    m = `sum |k|^2 / sum |k|` over the kernels; the factor is held fixed while derivatives are
    taken. Then all kernels with norms well above 0 count nearly the same, and are hardly shrunk.

    Args:
        alpha: Weight of the penalty, finite and >= 0; `r.alpha` is a variable that can be assigned.
        norm: `"l2"`, `"group_normalized"` (25) or `"group_scaled"` (29).
        groups: `"half_ring"` (18), `"ring"` (19), or `"kernel"` for the whole kernel only.
        reweight: `eps` above, >= 0; 0 is the penalty of the paper.
        weight: Factor of alpha.
        scale: Path of the batch-normalisation gamma paired with the kernel, set by `kss.attach`.
        links: The channels that the layer reads, set by `kss.attach`.
        layout: The order of the axes of the kernel, set by `kss.attach`.

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
        layout: str = "plain",
    ) -> None:
        one_of("norm", norm, ("l2", "group_normalized", "group_scaled"))
        super().__init__(alpha, norm, groups, 1, reweight, weight, scale, links, layout)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the current value of alpha.

        Returns:
            Dictionary for `from_config`.

        Examples:
            >>> MultiplyAdds(1e-8).get_config()["alpha"]
            1e-08
        """
        return {name: x for name, x in super().get_config().items() if name != "power"}

    def for_pruned_layer(self, share: float) -> Self:
        """Copy the regularizer for a layer whose zero kernels have been pruned.

        Kernels of zeros have no effect on `reweight` here, so it is not changed.

        Args:
            share: Number of remaining kernels over the number before pruning; not used.

        Returns:
            A regularizer with the same `alpha` variable, to be bound to its layer.
        """
        return self.bound()

    def slopes(self, norms: Tensor, norm_of: NormOf) -> Tensor:
        """Derivative with respect to the layer's own group norms, with the width held fixed.

        Args:
            norms: Group norms (groups, kernels).
            norm_of: Returns the norms of the kernels of a layer that feeds this one.

        Returns:
            Tensor (groups, kernels).
        """
        strength = self._strength(norms) * self._width(norms, norm_of)
        return penalties.slopes(norms, self._weights(norms), power=2) * strength

    def read_weights(self, norms: Tensor, norm_of: NormOf) -> list[tuple[ChannelGroup, Tensor]]:
        """Derivative with respect to the norms of the channels that the layer reads.

        Args:
            norms: Group norms (groups, kernels).
            norm_of: Returns the norms of the kernels of a layer that feeds this one.

        Returns:
            Pairs of channels and a tensor (width,).
        """
        strength = self._strength(norms)
        sizes = penalties.value(norms, self._weights(norms), power=2, strength=strength)
        return [(c, sizes * self._channel_weights(c, norm_of)) for c in self._required_spec().reads]

    def _value(self, norms: Tensor) -> Tensor:
        width = self._width(norms, functools.partial(self.whole_norms, norm=self.norm))
        strength = self._strength(norms) * width
        return penalties.value(norms, self._weights(norms), power=2, strength=strength)

    def _weights(self, norms: Tensor) -> Tensor:
        return penalties.counting_weights(norms, self.reweight)

    def _channel_weights(self, channels: ChannelGroup, norm_of: NormOf) -> Tensor:
        """Factors (width,) of the channel norms in the relaxed width times map positions."""
        return channels.weight * self._weights(channels.norms(norm_of)[None])[0]

    def _width(self, like: Tensor, norm_of: NormOf) -> Tensor:
        """`r_i c_i d'_{i-1}`: positions of the output map times the width that the layer reads."""
        spec = self._required_spec()
        parts = [ops.sum(self._channel_weights(c, norm_of) * c.norms(norm_of)) for c in spec.reads]
        return sum((ops.cast(part, like.dtype) for part in parts), spec.constant)

    def _required_spec(self) -> CouplingSpec:
        if self.links is None:
            raise RuntimeError(
                "MultiplyAdds depends on the layers that feed a layer, so it cannot be used as the "
                "regularizer of a single layer, or called on a kernel. Use kss.attach(model, "
                "MultiplyAdds())."
            )
        return self.links

    def _require_uncoupled(self) -> None:
        self._required_spec()
        super()._require_uncoupled()
