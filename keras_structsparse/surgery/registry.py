"""The rules by type of layer.

A rule serves exactly the types it was registered for: a subclass may do anything in its ``call``,
so it needs a rule of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import keras

from keras_structsparse.surgery.channels import Rule

_rules: dict[type[keras.Operation], Rule] = {}

RULES: Mapping[type[keras.Operation], Rule] = MappingProxyType(_rules)


def register(rule: Rule, *types: type[keras.Operation]) -> None:
    """Let a rule serve some types of layers, from now on.

    Args:
        rule: The rule.
        *types: The exact types; an earlier rule for one of them is replaced.

    Raises:
        TypeError: One of ``types`` is no type of Keras operations.
    """
    for kind in types:
        if not (isinstance(kind, type) and issubclass(kind, keras.Operation)):
            raise TypeError(f"register: expected types of Keras layers. Received: {kind!r}")
        _rules[kind] = rule
