"""The registry of rules, by type of layer.

A rule applies to exactly the types it was registered for: a subclass may compute anything in its
``call``, so it needs its own rule. A type from a package that may not be installed is registered
by the name under which Keras saves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import keras

from keras_structsparse.graph.channels.rule import Rule

Kind = type[keras.Operation] | str
"""A type of operation, or its registered name "package>Class"."""

_rules: dict[Kind, Rule] = {}

RULES: Mapping[Kind, Rule] = MappingProxyType(_rules)
"""All registered rules, read-only."""


def register(rule: Rule, *types: Kind) -> None:
    """Register a rule for some types of layers.

    Args:
        rule: The rule.
        *types: The exact types, or the names "package>Class" that
            ``keras.saving.register_keras_serializable`` gives them. The rule replaces earlier
            rules for these types.

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


def is_built_in(rule: Rule | None) -> bool:
    """Whether a rule is one of this package, or there is none."""
    if rule is None:
        return True
    flow = getattr(rule.flow, "func", rule.flow)
    return str(getattr(flow, "__module__", "")).split(".")[0] == __name__.split(".")[0]
