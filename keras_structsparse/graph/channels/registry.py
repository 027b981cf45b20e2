"""The rules by type of layer.

A rule serves exactly the types it was registered for: a subclass may do anything in its ``call``,
so it needs a rule of its own. A type of a package that may not be there goes by the name under
which Keras saves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import keras

from keras_structsparse.graph.channels.rule import Rule

Kind = type[keras.Operation] | str

_rules: dict[Kind, Rule] = {}

RULES: Mapping[Kind, Rule] = MappingProxyType(_rules)


def register(rule: Rule, *types: Kind) -> None:
    """Let a rule serve some types of layers, from now on.

    Args:
        rule: The rule.
        *types: The exact types, or the names "package>Class" under which
            ``keras.saving.register_keras_serializable`` knows them; an earlier rule for one of
            them is replaced.

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
    """The rule for the exact type of an operation; one for the type goes before one by name."""
    kind = type(operation)
    return _rules.get(kind) or _rules.get(keras.saving.get_registered_name(kind))
