"""Put the penalties of a base architecture onto what surgery has left of it.

What is solved must stay the same: every layer keeps the share of alpha that it has in the base
architecture, and the variable alpha itself.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.regularizers import MultiplyAdds
from keras_structsparse.regularizers.attachment import install
from keras_structsparse.regularizers.base import GroupSparsityRegularizer
from keras_structsparse.regularizers.coupled_groups import (
    PenalizedLayers,
    complexity_links,
    joint_links,
    no_links,
)
from keras_structsparse.regularizers.coupling import CouplingSpec
from keras_structsparse.surgery.kernel_provenance import Ancestry

COUNT_ENTRIES = ("group_normalized", "group_scaled")
"""Norms that count the entries of a group, which are fewer after surgery."""


def check_reattachable(
    regularizers: Mapping[str, GroupSparsityRegularizer], ancestry: Ancestry
) -> None:
    """Refuse penalties that would be others on a smaller network.

    Args:
        regularizers: Those of the base architecture, by name of the layer.
        ancestry: That of the base architecture.

    Raises:
        ValueError: There is such a penalty, or none at all.
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
    """Regularize a network that was cut as its base architecture was.

    Alphas are the same variables, shares of alpha those of the base. ``reweight`` compares with the
    mean over the base's kernels, of which those that are gone are zero. Joint groups and
    multiply-adds are those of the network as it is: a stream counts the layers that still write it.

    Args:
        regularizers: Those of the base architecture, by name of its layers.
        model: The network.
        ancestry: Its ancestry.

    Returns:
        The network; compile it afterwards.

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
        site = _site(prunable, old)
        install(site, _links(old)(site), {n: _spread(old[n], n, ancestry) for n in names})
    return model


def _family(regularizer: GroupSparsityRegularizer) -> Any:
    """Equal for regularizers that one call of `attach` has made."""
    return id(regularizer.alpha), type(regularizer), regularizer.norm, regularizer.groups


def _site(found: PrunableLayers, old: Mapping[str, GroupSparsityRegularizer]) -> PenalizedLayers:
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
        return complexity_links
    coupled = any(regularizer.links is not None for regularizer in old.values())
    return joint_links if coupled else no_links


def _spread(
    regularizer: GroupSparsityRegularizer, name: str, ancestry: Ancestry
) -> GroupSparsityRegularizer:
    base, numbers = ancestry.layers[name]
    return regularizer.for_pruned_layer(len(numbers) / ancestry.widths[base])
