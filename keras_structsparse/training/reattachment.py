"""Give a pruned network the penalties of its base architecture, so that training can continue.

The optimization problem must not change: every layer keeps its share of alpha in the base
architecture, and the same variable alpha.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_structsparse.graph.kernel_axes import plain_shape
from keras_structsparse.graph.nested_groups import masks
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.regularizers import MultiplyAdds
from keras_structsparse.regularizers.attachment import install
from keras_structsparse.regularizers.base import GroupSparsityRegularizer
from keras_structsparse.regularizers.coupled_groups import (
    PenalizedLayers,
    joint_specs,
    multiply_adds_specs,
    no_specs,
)
from keras_structsparse.regularizers.coupling import CouplingSpec
from keras_structsparse.surgery.kernel_provenance import Ancestry

COUNT_ENTRIES = ("group_normalized", "group_scaled")
"""Norms that depend on the number of entries of a group, which surgery reduces."""


def check_reattachable(
    regularizers: Mapping[str, GroupSparsityRegularizer], ancestry: Ancestry
) -> None:
    """Refuse penalties that would change on a smaller network.

    Args:
        regularizers: The regularizers of the base architecture, by name of the layer.
        ancestry: The ancestry of the base architecture.

    Raises:
        ValueError: There is such a penalty, or no penalty at all.
    """
    if not regularizers:
        raise ValueError(
            "model: expected one with regularizers of keras_structsparse, see kss.attach. "
            "Received: none"
        )
    for name, regularizer in regularizers.items():
        if name not in ancestry.layers:
            raise ValueError(
                f"model: expected regularizers on ungrouped convolutions and dense layers. "
                f"Received: one with layout={regularizer.layout!r} on '{name}', which cannot shrink"
            )
        if regularizer.norm in COUNT_ENTRIES:
            raise ValueError(
                f"model: expected regularizers with norm 'l2' or 'linf'. Received: "
                f"{regularizer.norm!r} on '{name}', which counts entries that shrinking removes"
            )


def reattach(
    regularizers: Mapping[str, GroupSparsityRegularizer], model: keras.Model, ancestry: Ancestry
) -> keras.Model:
    """Give a pruned network the regularizers of its base architecture.

    The alphas are the same variables, and the shares of alpha those of the base architecture.
    ``reweight`` compares with the mean over the kernels of the base architecture, where removed
    kernels count as zero. Joint groups and multiply-adds are those of the pruned network: a group
    has the layers that still write the channel.

    Args:
        regularizers: The regularizers of the base architecture, by name of its layers.
        model: The pruned network.
        ancestry: The ancestry of the pruned network.

    Returns:
        The pruned network; compile it afterwards.

    Examples:
        >>> from keras_structsparse.regularizers.attachment import attach, regularizers_of
        >>> from keras_structsparse.surgery.plans import Plan
        >>> from keras_structsparse.regularizers import KernelCount
        >>> from keras_structsparse.surgery import prune
        >>> inputs = keras.Input((8, 8, 1))
        >>> base = keras.Model(inputs, keras.layers.Conv2D(4, 3, name="conv")(inputs))
        >>> found = regularizers_of(attach(base, KernelCount(1e-3)))
        >>> pruned = prune(base, Plan({}))
        >>> left = Ancestry.between(base, pruned)
        >>> regularizers_of(reattach(found, pruned, left))["conv"].alpha is found["conv"].alpha
        True
    """
    prunable = PrunableLayers.of(model)
    families = collections.defaultdict(list)
    for name, (base, _) in ancestry.layers.items():
        if base in regularizers:
            families[_family(regularizers[base])].append(name)
    for names in families.values():
        old = {name: regularizers[ancestry.layers[name][0]] for name in names}
        penalized = _penalized(prunable, old)
        install(
            penalized,
            _links(old)(penalized),
            {n: _for_pruned_layer(old[n], n, prunable, ancestry) for n in names},
        )
    return model


def _family(regularizer: GroupSparsityRegularizer) -> Any:
    """A key that is equal for the regularizers of one call of `attach`."""
    return id(regularizer.alpha), type(regularizer), regularizer.norm, regularizer.groups


def _penalized(
    found: PrunableLayers, old: Mapping[str, GroupSparsityRegularizer]
) -> PenalizedLayers:
    return PenalizedLayers(
        found,
        {name: found.layers[name] for name in old},
        {
            name: found.batch_norms[name]
            for name, regularizer in old.items()
            if regularizer.scale is not None
        },
        {name: regularizer.weight for name, regularizer in old.items()},
        next(iter(old.values())).norm,
    )


def _links(
    old: Mapping[str, GroupSparsityRegularizer],
) -> Callable[[PenalizedLayers], dict[str, CouplingSpec]]:
    if any(isinstance(regularizer, MultiplyAdds) for regularizer in old.values()):
        return multiply_adds_specs
    coupled = any(regularizer.links is not None for regularizer in old.values())
    return joint_specs if coupled else no_specs


def _for_pruned_layer(
    regularizer: GroupSparsityRegularizer, name: str, prunable: PrunableLayers, ancestry: Ancestry
) -> GroupSparsityRegularizer:
    base, numbers = ancestry.layers[name]
    own = regularizer.for_pruned_layer(len(numbers) / ancestry.widths[base])
    if own.group_weights is not None:  # Half-rings vanish from the outside in.
        groups = len(masks(plain_shape(prunable.layers[name])[:-2], own.groups))
        own.group_weights = own.group_weights[-groups:, list(numbers)]
    return own
