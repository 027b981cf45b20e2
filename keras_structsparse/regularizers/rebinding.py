"""Give the regularizers of a loaded or cloned model what their configurations cannot hold.

A regularizer depends on variables of other layers, which it names by their paths, and shares its
alpha with the regularizers of other layers. Keras makes each layer of a loaded or cloned model from
its configuration alone. What is lost is found again when the regularizer is first needed.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from keras_structsparse import _keras_compat
from keras_structsparse.regularizers.kernel_layouts import LAYOUTS

Variables = Sequence[keras.Variable]


def rebind(owner: keras.Layer) -> None:
    """Bind the regularizers of a model to their variables, and let them share their alphas.

    Variables are searched in the smallest model around a kernel first, where names are unique.
    Nothing that has been bound is bound again.

    Args:
        owner: A model, or a layer or model that holds models.
    """
    layers = [owner, *_keras_compat.inner_layers(owner)]
    parts = [layer.variables for layer in layers if isinstance(layer, keras.Model)]
    for variables in sorted(parts, key=len):
        bind_among(variables)
    share_alphas(owner.variables)


def bind_among(variables: Variables) -> None:
    """Bind the regularizers of some variables to those that they depend on, as far as found.

    Args:
        variables: Variables, of which some have regularizers.
    """
    lacking = [(v, r) for v, r in _regularized(variables) if r.unbound]
    known = unique_paths(variables) if lacking else {}
    for variable, regularizer in lacking:
        # Twice: which statistics are needed is known once the scales are.
        for _ in range(2):
            found = {path: known[path] for path in regularizer.unbound if path in known}
            scale = found.get(regularizer.scale)
            width = LAYOUTS[regularizer.layout].width(variable.shape)
            if scale is None or tuple(scale.shape) == (width,):
                regularizer.bind(found)


def share_alphas(variables: Variables) -> None:
    """Give regularizers of equal settings that were made from configurations one alpha.

    It is the alpha of the first of them, or one that has been assigned a value since. Others that
    have been assigned a value keep their own.

    Args:
        variables: Variables, of which some have regularizers.
    """
    families: dict[Any, list[Any]] = collections.defaultdict(list)
    for _, regularizer in _regularized(variables):
        if regularizer.restored is not None:
            families[regularizer.restored].append(regularizer)
    for family in families.values():
        shared = next((r.alpha for r in family if r.alpha.assigned), family[0].alpha)
        for each in family:
            each.restored = None
            if not each.alpha.assigned:
                each.alpha = shared


def unique_paths(variables: Iterable[keras.Variable]) -> Mapping[str, keras.Variable]:
    """The variables by path, without those that share their path with another one.

    Args:
        variables: Variables.
    """
    distinct = {id(variable): variable for variable in variables}.values()
    counts = collections.Counter(variable.path for variable in distinct)
    return {v.path: v for v in distinct if counts[v.path] == 1}


def _regularized(variables: Variables) -> list[tuple[keras.Variable, Any]]:
    pairs = [(variable, getattr(variable, "regularizer", None)) for variable in variables]
    return [(v, r) for v, r in pairs if hasattr(r, "incomplete")]
