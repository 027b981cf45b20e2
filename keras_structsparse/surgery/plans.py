"""Plans: which kernels of a network stay, and at which size.

A plan is a value without Keras inside. It can be read off a trained model with a threshold
(:func:`plan`), written by hand, and kept as JSON. :func:`masked` applies it to a model by setting
entries to zero: that model is the reference which surgery must reproduce.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse._validation import nonnegative, positive_int
from keras_structsparse.errors import ModelError, PlanError
from keras_structsparse.graph import functional_graph, kernel_supports
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.graph.prunable_layers import ModelLike, PrunableLayers
from keras_structsparse.surgery import thresholds

Masks = dict[int, dict[str, Array]]

FORMAT = "keras_structsparse.plan/1"


@dataclass(frozen=True)
class Plan:
    """The sizes of all kernels of the layers that are to change.

    Attributes:
        sizes: For each layer, by name, the size of each of its kernels: the side of its support,
            0 for a kernel that is removed, at most the base size. For rectangular kernels the
            longer side counts; a dense kernel has size 1 or 0. Layers not named stay as they are.

    Raises:
        PlanError: A size is negative or no whole number.

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
        if not isinstance(self.sizes, Mapping):
            raise PlanError(
                "Plan: expected a mapping from layer names to the sizes of their kernels. "
                f"Received: {self.sizes!r}"
            )
        checked = {str(name): _checked_sizes(name, sizes) for name, sizes in self.sizes.items()}
        object.__setattr__(self, "sizes", checked)

    @property
    def widths(self) -> dict[str, int]:
        """Number of kernels left in each layer (the widths d_i, eq. 11)."""
        return {name: sum(size > 0 for size in sizes) for name, sizes in self.sizes.items()}

    @property
    def removed_layers(self) -> tuple[str, ...]:
        """Names of the layers without a kernel left."""
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
            text: What :meth:`to_json` wrote, or the same by hand.

        Returns:
            The plan.

        Raises:
            PlanError: The text is no JSON, or no plan of this format.
        """
        try:
            content = json.loads(text)
        except (TypeError, ValueError) as error:
            raise PlanError(f"Plan: expected JSON. Received text that is none: {error}") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            found = content.get("format") if isinstance(content, dict) else type(content).__name__
            raise PlanError(f'Plan: expected "format": "{FORMAT}". Received: {found!r}')
        sizes: Any = content.get("sizes")
        return cls(sizes)


def _checked_sizes(name: str, sizes: Sequence[int]) -> tuple[int, ...]:
    try:
        if isinstance(sizes, str | bytes | Mapping):
            raise TypeError
        checked = tuple(int(size) for size in sizes)
        whole = all(float(s) == c and c >= 0 for s, c in zip(sizes, checked, strict=True))
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        raise PlanError(
            f"Plan: layer '{name}': expected one whole number >= 0 for each kernel. "
            f"Received: {sizes!r}"
        )
    return checked


def plan(
    model: ModelLike,
    tau: float = 1e-3,
    groups: str = "half_ring",
    coupled: bool = False,
    round_to: int = 1,
) -> Plan:
    """Read the plan off a trained model (eqs. 15, 23).

    The size of kernel j is the number of its groups with a norm above ``tau``. Where a batch
    normalisation follows a layer and nothing else does, the norms are those of the effective
    kernels ``gamma_j k_j / |k_j|``: normalisation hides the kernel's own scale.

    Args:
        model: A functional or built Sequential model.
        tau: The threshold on the l2 norms; 0 keeps what is not exactly zero.
        groups: "half_ring" for sizes 0..s, "ring" for 0 and every second size.
        coupled: Whether kernels that write the same channels, because the outputs of their layers
            are added, are removed together: where the root of the mean of their squared norms is
            not above ``tau``. The others of them keep at least size 1.
        round_to: What the number of kernels that stay in a layer is rounded up to a multiple of:
            the strongest of those that ``tau`` removes come back, with the rings that are as
            strong as the weakest of these kernels. A kernel of zeros never comes back, nor does
            anything in a layer that goes as a whole; where too few kernels could, none does.

    Returns:
        The plan, with an entry for every ungrouped convolution and dense layer.

    Raises:
        ModelError: The model has no graph or no convolutions, or a weight that is not finite.
        ValueError: ``tau`` is negative or not finite, ``groups`` is unknown, or ``round_to`` is no
            whole number >= 1.
    """
    nonnegative("tau", tau)
    found = PrunableLayers.of(model)
    check_convolutions(found)
    block = positive_int("round_to", round_to)
    return Plan(thresholds.sizes(found, tau, groups, coupled, block))


def check_convolutions(found: PrunableLayers) -> None:
    """Raise a ModelError unless the model has an ungrouped convolution."""
    if not found.convolutions:
        raise ModelError(
            f"Model '{found.model.name}' has no convolutions whose kernels could be chosen. "
            "Expected at least one Conv1D, Conv2D or Conv3D layer with groups=1."
        )


def masks(found: PrunableLayers, plan: Plan) -> Masks:
    """The weights that a plan changes, with its entries set to zero.

    Args:
        found: The prunable layers of the model.
        plan: The plan.

    Returns:
        By ``id`` of the layer and name of the weight, the new value. A kernel that is removed
        takes the gamma of its batch normalisation along, so that the channel becomes the constant
        beta; unless the kernel is zero already: then the channel is constant as it is. So the
        plan at tau = 0 changes nothing.

    Raises:
        PlanError: The plan does not fit the model.
    """
    result: Masks = {}
    for name, sizes in plan.sizes.items():
        layer = _planned_layer(found.layers, name)
        kernel = keras.ops.convert_to_numpy(layer.kernel)
        _check_fit(name, sizes, kernel.shape)
        result[id(layer)] = {"kernel": masked_kernel(kernel, sizes)}
        norm = found.scaled_norms.get(name)
        if norm is not None:
            cut = (np.asarray(sizes) == 0) & kernel.any(axis=tuple(range(kernel.ndim - 1)))
            gamma = keras.ops.convert_to_numpy(norm.gamma)
            result[id(norm)] = {"gamma": np.where(cut, np.zeros_like(gamma), gamma)}
    return result


def masked_kernel(kernel: Array, sizes: Sequence[int]) -> Array:
    """A kernel (*spatial, in, out) with zeros outside the supports of the given sizes (out,)."""
    *shape, _, width = kernel.shape
    inside = np.zeros((*shape, width), bool)
    for size in sorted(set(sizes) - {0}):
        inside[kernel_supports.support(tuple(shape), size)] |= np.asarray(sizes) == size
    return np.where(inside[..., None, :], kernel, np.zeros((), kernel.dtype))


def _planned_layer(layers: Mapping[str, keras.Layer], name: str) -> keras.Layer:
    if name not in layers:
        near = difflib.get_close_matches(name, layers, n=3, cutoff=0.4)
        hint = f" Did you mean: {', '.join(near)}?" if near else f" It has: {', '.join(layers)}"
        raise PlanError(
            f"Plan: layer '{name}' is not an ungrouped convolution or dense layer of the model; "
            f"the plan is for another model.{hint}"
        )
    return layers[name]


def _check_fit(name: str, sizes: Sequence[int], shape: tuple[int, ...]) -> None:
    if len(sizes) != shape[-1]:
        raise PlanError(
            f"Plan: layer '{name}' has {shape[-1]} kernels. Received {len(sizes)} sizes; the plan "
            "is for another model."
        )
    base = max(shape[:-2], default=1)
    if max(sizes, default=0) > base:
        raise PlanError(
            f"Plan: layer '{name}' has kernels of size {base}. Received size {max(sizes)}."
        )


def masked(model: keras.Model, plan: Plan) -> keras.Model:
    """The model with the plan's entries set to zero: the reference for surgery.

    Args:
        model: A functional or built Sequential model; it is not changed.
        plan: The plan.

    Returns:
        An uncompiled copy of the same architecture.

    Raises:
        ModelError: The model has no graph.
        PlanError: The plan does not fit the model.
    """
    found = PrunableLayers.of(model)
    changes = masks(found, plan)
    twin = copy_model(model)
    originals, copies = found.graph.layers(), functional_graph.read(twin).layers()
    for original, copied in zip(originals, copies, strict=True):
        for weight, value in changes.get(id(original.operation), {}).items():
            getattr(copied.operation, weight).assign(value)
    return twin
