"""Masks as expressions that can be compared: from which tensors a mask is computed, and how."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from numbers import Number
from typing import Any

import keras

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Shape, Tensor
from keras_structsparse.graph.nested_calls import call_arguments

Term = int
"""The number of an expression in :class:`Terms`. Equal expressions have equal numbers."""

NO_POSITION = ("zeros",)

OWN = frozenset(kind for kind in vars(keras.layers).values() if isinstance(kind, type))
"""Keras' own layers: nothing in their calls hands on a mask beside what they say of it."""

CLEARS = (keras.layers.MultiHeadAttention,)
"""Layers that take the masks off the tensors that they read, for all who read them later."""


class Terms:
    """Numbers expressions; expressions of two graphs can be compared by their numbers.

    Logical "or" is a set of terms, and a mask that Keras spreads over channels to concatenate it is
    that mask.
    """

    def __init__(self) -> None:
        self._numbers: dict[Hashable, Term] = {}
        self._keys: list[Any] = []
        self._shapes: list[Shape] = []

    def of(self, key: Hashable, shape: Shape = ()) -> Term:
        """The number of an expression.

        Args:
            key: Anything hashable that says what is computed from what.
            shape: The shape of the result, batch first.
        """
        if key not in self._numbers:
            self._numbers[key] = len(self._keys)
            self._keys.append(key)
            self._shapes.append(tuple(shape))
        return self._numbers[key]

    def shape(self, term: Term) -> Shape:
        """The shape of the result of an expression."""
        return self._shapes[term]

    def applied(self, operation: keras.Operation, parts: Sequence[Any], shape: Shape) -> Term:
        """The number of an operation on terms, given as ``("term", number)``, and other values."""
        terms = [part[1] for part in parts if _is_term(part)]
        name = type(operation).__name__
        if name == "ConvertToTensor" and len(terms) == 1:
            return terms[0]
        if name in ("ZerosLike", "OnesLike"):
            return self.of(NO_POSITION if name == "ZerosLike" else ("ones", shape[:-1]), shape)
        if name == "LogicalOr" and len(terms) == 2:
            return self._either(terms, shape)
        if name == "ExpandDims" and operation.axis == -1:
            return self.of(("each channel", terms[0]), shape)
        if name == "Concatenate" and operation.axis in (-1, len(shape) - 1):
            return self.of(("channels", frozenset(terms)), shape)
        if name == "Any" and operation.axis == -1 and not operation.keepdims:
            found = self._keys[terms[0]]
            if found[0] == "channels":
                return self._either([self._of_channels(term) for term in found[1]], shape)
        return self.of((name, _settings(operation), tuple(parts)), shape)

    def _either(self, terms: Sequence[Term], shape: Shape) -> Term:
        found: set[Term] = set()
        for term in terms:
            key = self._keys[term]
            found |= key[1] if key[0] == "or" else {term}
        found -= {self.of(NO_POSITION)}
        ones = [term for term in found if self._keys[term][0] == "ones"]
        if ones or len(found) == 1:
            return ones[0] if ones else found.pop()
        return self.of(("or", frozenset(found)), shape)

    def _of_channels(self, term: Term) -> Term:
        key = self._keys[term]
        return key[1] if key[0] == "each channel" else term

    def expression(self, tensor: Tensor, leaves: Mapping[int, Term]) -> Term:
        """How a symbolic tensor is computed by bare operations.

        Args:
            tensor: The tensor.
            leaves: Known terms, by ``id`` of symbolic tensors. Outputs of layers are leaves too.
        """
        known = dict(leaves)
        stack = [tensor]
        while stack:  # not by recursion: chains of operations may be long
            top = stack[-1]
            node = None if id(top) in known else _keras_compat.producer(top)
            if node is None or isinstance(node.operation, keras.Layer):
                known.setdefault(id(top), self.of(("tensor of a layer", id(top)), top.shape))
                stack.pop()
                continue
            missing = [other for other in node.inputs if id(other) not in known]
            stack += missing
            if not missing:
                stack.pop()
                values = [("term", known[id(other)]) for other in node.inputs]
                for index, output in enumerate(node.outputs):
                    parts = [*frozen(node.arguments, values), *([index] if index else [])]
                    known[id(output)] = self.applied(node.operation, parts, output.shape)
        return known[id(tensor)]


def frozen(arguments: Any, terms: Sequence[Any]) -> list[Hashable]:
    """The arguments of a call, flat and hashable, with terms in the places of its tensors."""
    args, kwargs = _keras_compat.filled(arguments, [_Held(term) for term in terms])
    return [
        value.term if isinstance(value, _Held) else repr(value)
        for value in keras.tree.flatten([list(args), sorted(kwargs.items())])
    ]


class _Held:
    """Holds a term, so that it counts as one value."""

    def __init__(self, term: Hashable) -> None:
        self.term = term


def _is_term(part: Any) -> bool:
    return isinstance(part, tuple) and part[0] == "term"


def _settings(operation: keras.Operation) -> Hashable:
    """The options that a bare operation was made with."""
    plain = (Number, str, tuple, list, type(None))
    return tuple(
        sorted(
            (name, repr(value))
            for name, value in vars(operation).items()
            if not name.startswith("_") and name != "name" and isinstance(value, plain)
        )
    )


def has_mask(tensor: Tensor) -> bool:
    """Whether a symbolic tensor has a mask beside it."""
    return _keras_compat.mask_of(tensor) is not None


def makes_masks(operation: keras.Operation) -> bool:
    """Whether a layer that is not Keras' own contains one that makes a mask of values."""
    if type(operation) in OWN or not isinstance(operation, keras.Layer):
        return False
    return any(
        isinstance(layer, keras.layers.Masking) or getattr(layer, "mask_zero", False)
        for layer in _keras_compat.inner_layers(operation)
    )


def may_differ(nodes: Sequence[_keras_compat.Node], inputs: Collection[int]) -> set[int]:
    """The tensors that may have other masks, when a model runs, than in its symbolic graph.

    There, a nested model or a layer of a user hands on no masks, since its own graph has none.

    Args:
        nodes: The calls of the model.
        inputs: Those of its inputs, by ``id``, that may be given masks.

    Returns:
        The tensors, by ``id``.
    """
    found = set(inputs)
    for node in nodes:
        layer = isinstance(node.operation, keras.Layer) and type(node.operation) not in OWN
        given = layer and any(map(has_mask, node.inputs))
        taken = type(node.operation) in CLEARS
        if taken:
            found.update(id(tensor) for tensor in node.inputs)
        if given or any(id(t) in found for t in node.inputs) or makes_masks(node.operation):
            found.update(id(tensor) for tensor in node.outputs)
    return found


def has_its_own_masks(node: _keras_compat.Node, others: Collection[int]) -> bool:
    """Whether the masks given to a call are those that its tensors have beside them anyway.

    Keras writes them into the graph as arguments. The layers inside a nested model then need not be
    given them.

    Args:
        node: The call of a nested model.
        others: The tensors of :func:`may_differ`.
    """
    mask = call_arguments(node).get("mask")
    if mask is None:
        return True
    given = keras.tree.flatten(mask)
    if not all(value is None or isinstance(value, keras.KerasTensor) for value in given):
        return False
    tensors = node.inputs[: len(node.inputs) - sum(value is not None for value in given)]
    if any(id(tensor) in others for tensor in tensors):
        return False
    terms = Terms()

    def term(value: Tensor | None) -> Term | None:
        return None if value is None else terms.expression(value, {})

    return list(map(term, given)) == [term(_keras_compat.mask_of(tensor)) for tensor in tensors]
