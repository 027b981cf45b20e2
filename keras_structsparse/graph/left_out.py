"""Which layers with kernels are left out of plans and penalties, and why, in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import keras
from keras import layers

from keras_structsparse.graph.functional_graph import Graph
from keras_structsparse.graph.kernel_axes import KERNELS, axes_of

_SHOWN = 3

_WITHOUT_KERNELS = (
    *(layers.BatchNormalization, layers.LayerNormalization, layers.GroupNormalization),
    *(layers.Embedding, layers.PReLU, layers.Normalization),
)

_INSIDE = "called inside of other layers as well"

_REASONS: tuple[tuple[Callable[[keras.Layer], bool], str], ...] = (
    (lambda layer: getattr(layer, "lora_enabled", False), "with low-rank adapters"),
    (lambda layer: type(layer) in KERNELS and getattr(layer, "groups", 1) > 1, "grouped"),
    (lambda layer: type(layer) in KERNELS and axes_of(layer).transposed, "transposed"),
    (lambda layer: type(layer) in KERNELS and not layer.trainable, "frozen"),
    (lambda layer: isinstance(layer, tuple(KERNELS)), "of a subclass"),
    (lambda layer: isinstance(layer, layers.Wrapper), "wrapped"),
    (lambda layer: True, "of a type whose kernels are not followed"),
)
"""The first reason that holds for a layer is named."""


def left_out(graph: Graph, served: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The layers with kernels that are not among those served, by reason.

    Args:
        graph: The graph.
        served: Names of the layers that are served.

    Returns:
        Names of layers by reason, such as "grouped". Dense layers are not listed: users name
        those that they want.

    Examples:
        >>> from keras_structsparse.graph.functional_graph import read
        >>> stack = [layers.Conv2D(4, 3, name="c"), layers.Conv2D(4, 3, groups=2, name="d")]
        >>> left_out(read(keras.Sequential([keras.Input((8, 8, 1)), *stack])), ["c"])
        {'grouped': ('d',)}
    """
    found: dict[str, list[str]] = {}
    for call in graph.layers():
        layer = call.operation
        if call.name not in served and _has_kernels(layer):
            reason = next(reason for holds, reason in _REASONS if holds(layer))
            reason = _INSIDE if id(layer) in graph.hidden else reason
            found.setdefault(reason, []).append(call.name)
    return {reason: tuple(dict.fromkeys(names)) for reason, names in found.items()}


def _has_kernels(layer: keras.Layer) -> bool:
    matrix = any(len(weight.shape) > 1 for weight in getattr(layer, "weights", ()))
    return matrix and type(layer) is not layers.Dense and type(layer) not in _WITHOUT_KERNELS


def described(found: Mapping[str, Collection[str]]) -> str:
    """What :func:`left_out` returned, as text; long lists are cut.

    Examples:
        >>> described({"grouped": ("a", "b"), "wrapped": tuple("cdefg")})
        '2 grouped (a, b); 5 wrapped (c, d, e, ...)'
    """
    parts = []
    for reason, names in found.items():
        shown = [*list(names)[:_SHOWN], *(["..."] if len(names) > _SHOWN else [])]
        parts.append(f"{len(names)} {reason} ({', '.join(shown)})")
    return "; ".join(parts)
