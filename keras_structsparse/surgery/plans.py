"""Plans: the kernels of a network that are kept, and their sizes.

A plan is a value that does not depend on Keras. It is read from a trained model with a threshold
(:func:`plan`) or written by hand, and it is stored as JSON. :func:`masked` applies it to a model by
setting entries to zero: this masked model is the reference that surgery must reproduce.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_structsparse._records import check_format, parse_json, shortened
from keras_structsparse._typing import Array
from keras_structsparse._validation import nonnegative, positive_int, set_checked
from keras_structsparse.errors import ModelError, PlanError
from keras_structsparse.graph import functional_graph, nested_groups
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.graph.kernel_axes import axes_of, base_size, plain_kernel, stored
from keras_structsparse.graph.prunable_layers import ModelLike, PrunableLayers
from keras_structsparse.surgery import thresholds

Masks = dict[int, dict[str, Array]]
"""Masked weights, by ``id`` of the layer and name of the weight."""

FORMAT = "keras_structsparse.plan/1"


@dataclass(frozen=True)
class Plan:
    """The sizes of all kernels of the layers that surgery changes.

    Attributes:
        sizes: For each layer, by name, the size of each of its kernels: the side of its support, at
            most the original one, or 0 to remove the kernel. For rectangular kernels it is the
            longer side; a dense kernel has size 1 or 0. Layers that are not named do not change.

    Raises:
        PlanError: A size is negative or not a whole number.

    Examples:
    >>> plan = Plan({"conv": (5, 3, 0, 3), "branch": (0, 0)})
    >>> plan.widths
    {'conv': 3, 'branch': 0}
    >>> plan.removed_layers
    ('branch',)
    >>> Plan.from_json(plan.to_json()) == plan
    True
    """

    sizes: Mapping[str, Sequence[int]]

    def __post_init__(self) -> None:
        given: object = self.sizes
        if not isinstance(given, Mapping):
            expected = "a mapping from layer names to the sizes of their kernels"
            raise PlanError(f"Plan: expected {expected}. Received: {shortened(self.sizes)}")
        checked = {str(name): _checked_sizes(name, sizes) for name, sizes in self.sizes.items()}
        set_checked(self, sizes=checked)

    @property
    def widths(self) -> dict[str, int]:
        """The number of kernels that each layer keeps (the widths d_i, eq. 11)."""
        return {name: sum(size > 0 for size in sizes) for name, sizes in self.sizes.items()}

    @property
    def removed_layers(self) -> tuple[str, ...]:
        """The names of the layers that keep no kernel."""
        return tuple(name for name, width in self.widths.items() if width == 0)

    def to_json(self) -> str:
        """The plan as JSON text, which :meth:`from_json` reads."""
        layers = ",\n".join(
            f"    {json.dumps(name)}: {json.dumps(list(sizes))}"
            for name, sizes in self.sizes.items()
        )
        return f'{{\n  "format": {json.dumps(FORMAT)},\n  "sizes": {{\n{layers}\n  }}\n}}\n'

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a plan from JSON text.

        Args:
            text: What :meth:`to_json` wrote, or text of the same format.

        Returns:
            The plan.

        Raises:
            PlanError: The text is not JSON, or not a plan of this format.
        """
        try:
            content = parse_json(text)
        except (TypeError, ValueError) as error:
            raise PlanError(f"Plan: expected JSON. Received invalid JSON: {error}") from error
        check_format(content, FORMAT, "Plan", PlanError)
        return cls(content.get("sizes"))


def _checked_sizes(name: str, sizes: Sequence[int]) -> tuple[int, ...]:
    try:
        if isinstance(sizes, str | bytes | Mapping):
            raise TypeError
        return tuple(_whole_size(size) for size in sizes)
    except (TypeError, ValueError, OverflowError):
        raise PlanError(
            f"Plan: layer '{name}': expected one whole number >= 0 for each kernel. "
            f"Received: {shortened(sizes)}"
        ) from None


def _whole_size(size: Any) -> int:
    number = nonnegative("size", size)
    if number != int(number):  # 3.0 is a whole number too, in a plan of another program.
        raise ValueError
    return int(number)


def plan(
    model: ModelLike,
    tau: float = 1e-3,
    groups: str = "half_ring",
    coupled: bool = False,
    round_to: int = 1,
) -> Plan:
    """Read the plan of a trained model at a threshold (eqs. 15, 23).

    The size of a kernel is the number of its groups with a norm above ``tau``. If the only reader
    of a layer is a batch normalisation, the norms are those of the effective kernels
    ``gamma_j k_j / |k_j|``, since the normalisation cancels the length of the kernel itself.

    Args:
        model: A functional or built Sequential model.
        tau: The threshold on the l2 norms; 0 removes only groups that are exactly zero.
        groups: "half_ring" for the sizes 0..s, "ring" for 0 and every second size.
        coupled: Whether kernels that write the same channels of a sum are removed together: if the
            root mean square of their norms is at most ``tau``. Otherwise each has at least size 1.
        round_to: The number of kept kernels of a layer is rounded up to a multiple of this number.
            The strongest removed kernels are restored, with the groups whose norms reach that of
            the weakest restored kernel. Kernels of zeros, and kernels of layers that are removed
            completely, are never restored; if too few kernels remain, none is.

    Returns:
        The plan, with an entry for every ungrouped, depthwise, transposed or separable convolution
        and dense layer. Kernels of transposed convolutions are kept whole or removed; those of
        separable convolutions are the pointwise ones, of size 1.

    Raises:
        ModelError: The model has no graph or no convolutions, or a weight that is not finite.
        ValueError: ``tau`` is negative or not finite, ``groups`` is unknown, or ``round_to`` is not
            a whole number >= 1.

    Examples:
        >>> layer = keras.layers.Conv2D(2, 1, use_bias=False, name="conv")
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), layer])
        >>> layer.set_weights([np.array([[[[0.5, 0.01]]]])])
        >>> plan(model, tau=0.1).sizes
        {'conv': (1, 0)}
    """
    nonnegative("tau", tau)
    found = PrunableLayers.of(model)
    check_convolutions(found)
    block = positive_int("round_to", round_to)
    return Plan(thresholds.sizes(found, tau, groups, coupled, block))


def check_convolutions(found: PrunableLayers) -> None:
    """Raise a ModelError unless the model has a convolution, or a dense layer behind another."""
    if not found.convolutions and len(found.layers) < 2:
        raise ModelError(
            f"Model '{found.model.name}' has no convolutions whose kernels can be removed. "
            "Expected at least one convolution with groups=1, such as Conv2D; it may be transposed "
            "or separable."
        )


def masks(found: PrunableLayers, plan: Plan) -> Masks:
    """The weights that a plan changes, with the removed entries set to zero.

    For a removed kernel the gamma of its paired batch normalisation becomes zero too, so that the
    channel becomes the constant beta. Behind a gate beta becomes zero as well, since a product with
    another constant depends on the gate. If the kernel or gamma is zero already, the channel is
    constant anyway and they are left alone: so the plan at tau = 0 changes nothing.

    Args:
        found: The prunable layers of the model.
        plan: The plan.

    Returns:
        The new values, by ``id`` of the layer and name of the weight.

    Raises:
        PlanError: The plan does not fit the model.
    """
    result: Masks = {}
    for name, sizes in plan.sizes.items():
        layer = _planned_layer(found, name)
        axes, kernel = axes_of(layer), plain_kernel(layer)
        _check_fit(name, sizes, layer, kernel.shape[-1])
        result[id(layer)] = {axes.weight: stored(layer, nested_groups.masked_kernel(kernel, sizes))}
        norm = found.scaled_norms.get(name)
        if norm is not None:
            removed = (np.asarray(sizes) == 0) & kernel.any(axis=tuple(range(kernel.ndim - 1)))
            gamma = keras.ops.convert_to_numpy(norm.gamma)
            result[id(norm)] = {"gamma": np.where(removed, np.zeros_like(gamma), gamma)}
            if removed.any() and name in found.gated_norms:
                beta = keras.ops.convert_to_numpy(norm.beta)
                muted = removed & (gamma != 0)
                result[id(norm)]["beta"] = np.where(muted, np.zeros_like(beta), beta)
    return result


def _planned_layer(found: PrunableLayers, name: str) -> keras.Layer:
    layers, graph = found.layers, found.graph
    operation = next((call.operation for call in graph.layers() if call.name == name), None)
    if id(operation) in graph.hidden:
        raise PlanError(
            "Plan: expected layers whose kernels can be removed at all their calls. Received "
            f"layer '{name}', which is also called inside of another layer, such as a wrapper."
        )
    if mode := getattr(operation, "quantization_mode", None):
        raise PlanError(
            f"Plan: layer '{name}' is quantised ({mode}), so its kernels cannot be removed. "
            "Prune the model before it is quantised."
        )
    if getattr(operation, "lora_enabled", False):
        raise PlanError(
            f"Plan: layer '{name}' has low-rank adapters, so its kernels cannot be removed. "
            "Load its saved weights, into which Keras merges them, into a model without adapters."
        )
    if name not in layers:
        near = difflib.get_close_matches(name, layers, n=3, cutoff=0.4)
        hint = f"Did you mean: {', '.join(near)}?" if near else f"It has: {', '.join(layers)}"
        told = f"Plan: the model has no prunable layer '{name}'; the plan is for another model"
        raise PlanError(f"{told}. {hint}")
    return layers[name]


def _check_fit(name: str, sizes: Sequence[int], layer: keras.Layer, width: int) -> None:
    if len(sizes) != width:
        raise PlanError(
            f"Plan: layer '{name}' has {width} kernels. Received {len(sizes)} sizes; the plan "
            "is for another model."
        )
    base = base_size(layer)
    if not axes_of(layer).sized and (between := sorted(set(sizes) - {0, base})):
        raise PlanError(
            f"Plan: layer '{name}' ({type(layer).__name__}) keeps its kernels whole or not at all: "
            f"expected sizes 0 and {base}. Received size {between[0]}."
        )
    if max(sizes, default=0) > base:
        raise PlanError(
            f"Plan: layer '{name}' has kernels of size {base}. Received size {max(sizes)}."
        )


def masked(model: keras.Model, plan: Plan) -> keras.Model:
    """A copy of the model with the entries that the plan removes set to zero.

    This masked model is the reference for surgery: the pruned model computes the same function.

    Args:
        model: A functional or built Sequential model; it is not changed.
        plan: The plan.

    Returns:
        An uncompiled copy of the same architecture.

    Raises:
        ModelError: The model has no graph.
        PlanError: The plan does not fit the model.

    Examples:
        >>> conv = keras.layers.Conv2D(2, 3, name="conv")
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), conv])
        >>> kernel = masked(model, Plan({"conv": (1, 0)})).get_layer("conv").kernel
        >>> [int(np.count_nonzero(kernel[..., j])) for j in range(2)]
        [1, 0]
    """
    found = PrunableLayers.of(model)
    changes = masks(found, plan)
    twin = copy_model(model)
    originals, copies = found.graph.layers(), functional_graph.read(twin).layers()
    for original, copied in zip(originals, copies, strict=True):
        for weight, value in changes.get(id(original.operation), {}).items():
            getattr(copied.operation, weight).assign(value)
    return twin
