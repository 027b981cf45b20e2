"""The registry of rules, by type of layer.

A rule applies to exactly the types it was registered for: a subclass may compute anything in its
``call``, so it needs its own rule. A type from a package that may not be installed is registered
by the name under which Keras saves it.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from keras_structsparse.graph.channels.rule import Rule, Site

Kind = type[keras.Operation] | str
"""A type of operation, or its registered name "package>Class"."""

_rules: dict[Kind, Rule] = {}

_understood: dict[Kind, frozenset[str] | None] = {}

RULES: Mapping[Kind, Rule] = MappingProxyType(_rules)
"""All registered rules, read-only."""


class Hole:
    """Marks the place of a tensor among the arguments of a call."""


def register(rule: Rule, *types: Kind, understands: Collection[str] | None = ()) -> None:
    """Register a rule for some types of layers or bare operations.

    Args:
        rule: The rule.
        *types: The exact types, or the names "package>Class" that
            ``keras.saving.register_keras_serializable`` gives them. The rule replaces earlier
            rules for these types.
        understands: For bare operations, the names of their arguments that the rule reads or that
            make no difference to it, besides the input: parameters of the constructor and of the
            call. An operation with any other argument that differs from the default is treated as
            one without a rule. None: the rule copies the operation unchanged. Layers have no use
            for it: their rules read their attributes.

    Raises:
        TypeError: One of ``types`` is neither a type of Keras operations nor such a name.
    """
    for kind in types:
        operation = isinstance(kind, type) and issubclass(kind, keras.Operation)
        if not operation and not (isinstance(kind, str) and ">" in kind):
            raise TypeError(
                "register: expected types of Keras layers, or names as 'package>Class'. "
                f"Received: {kind!r}"
            )
        _rules[kind] = rule
        _understood[kind] = None if understands is None else frozenset(understands)


def rule_for(operation: keras.Operation) -> Rule | None:
    """The rule for an operation: by its exact type, or else by its registered name.

    Args:
        operation: A layer or a bare operation.

    Returns:
        The rule; None if there is none.

    Examples:
        >>> from keras_structsparse.surgery import RULES
        >>> rule_for(keras.layers.ReLU()) is RULES[keras.layers.ReLU]
        True
    """
    kind = type(operation)
    return _rules.get(kind) or _rules.get(keras.saving.get_registered_name(kind))


def arguments(site: Site) -> dict[str, Any]:
    """All arguments of a bare operation by name.

    Args:
        site: The call site.

    Returns:
        The values of the parameters of the constructor and of the call; a :class:`Hole` in place of
        each tensor.
    """
    operation = site.operation
    args, kwargs = site.fill([Hole() for _ in site.inputs])
    bound = inspect.signature(operation.call).bind(*args, **kwargs)
    own = {name: getattr(operation, name, Hole()) for name in _parameters(operation)}
    return {**own, **bound.arguments}


def not_understood(site: Site) -> str | None:
    """Why the rule of a bare operation does not apply: an argument that it does not know.

    Args:
        site: The call site.

    Returns:
        The reason; None if the rule understands all arguments that differ from the defaults, and
        for layers.
    """
    operation, kind = site.operation, type(site.operation)
    if isinstance(operation, keras.Layer):
        return None
    understood = _understood.get(kind, _understood.get(keras.saving.get_registered_name(kind)))
    if understood is None:
        return None
    called = inspect.signature(operation.call).parameters
    defaults = {**_parameters(operation), **{n: p.default for n, p in called.items()}}
    known = {*understood, next(iter(called))}
    given = arguments(site).items()
    unknown = [n for n, v in given if n not in known and not _equal(v, defaults[n])]
    words = ", ".join(f"'{name}'" for name in unknown)
    return f"surgery does not know what its argument {words} does" if unknown else None


def _parameters(operation: keras.Operation) -> dict[str, Any]:
    """The parameters of the constructor of an operation, with their defaults."""
    signature = inspect.signature(type(operation).__init__).parameters
    return {n: p.default for n, p in signature.items() if n not in ("self", "name")}


def _equal(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and bool(np.all(value == default)))


def is_built_in(rule: Rule | None) -> bool:
    """Whether a rule is one of this package, or there is none."""
    if rule is None:
        return True
    flow = getattr(rule.flow, "func", rule.flow)
    return str(getattr(flow, "__module__", "")).split(".")[0] == __name__.split(".")[0]
