"""Follow the masks that travel beside tensors through a graph, as Keras does when it runs.

A layer hands on the mask of its first argument, computes one, or drops it; bare operations drop it.
Some layers read masks: as arguments of their call, or from the tensors themselves.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import layers

from keras_structsparse.graph.functional_graph import Call, Graph, is_opened
from keras_structsparse.graph.mask_terms import CLEARS, OWN, Term, Terms, frozen, makes_masks

INDIFFERENT = (layers.Add, layers.Subtract, layers.Average, layers.Concatenate)
"""Layers of several tensors whose output, without its mask, does not depend on masks."""

Label = Callable[[int], Hashable]


@dataclass(frozen=True)
class Masks:
    """The masks of a graph.

    Attributes:
        beside: The mask that each tensor has when it is computed, as a term; others have none.
        received: The masks that each call receives, by ``id``, if its layer may read them.
        finally_: The masks that the outputs of the graph have at the end: a call may take a mask
            off a tensor that it reads, or give it another one.
    """

    beside: Mapping[int, Term]
    received: Mapping[int, tuple[Term | None, ...]]
    finally_: Mapping[int, Term | None] = field(default_factory=dict)

    def reads(self, call: Call) -> bool:
        """Whether the values that a call computes may depend on a mask."""
        return any(mask is not None for mask in self.received.get(id(call), ()))


def follow(graph: Graph, terms: Terms | None = None, label: Label = lambda index: index) -> Masks:
    """Find which tensors of a graph have masks beside them, and from what these are computed.

    Args:
        graph: The graph.
        terms: Numbers the expressions of masks; to compare two graphs, give both the same.
        label: From a tensor of the graph to what it stands for in both graphs.

    Returns:
        The masks.

    Examples:
        >>> from keras_structsparse.graph.functional_graph import read
        >>> inputs = keras.Input((8, 3))
        >>> x = keras.layers.Dense(4)(keras.layers.Masking()(inputs))
        >>> graph = read(keras.Model(inputs, keras.ops.relu(x)))
        >>> [i in follow(graph).beside for call in graph.calls for i in call.outputs]
        [True, True, False]
    """
    follower = _Follower(graph, Terms() if terms is None else terms, label)
    for call in graph.calls:
        follower.run(call)
    return Masks(follower.made, follower.received, {i: follower.mask(i) for i in graph.outputs})


@dataclass(frozen=True)
class _Slot:
    """Stands for an input of a call among its arguments."""

    index: int


class _Follower:
    """Runs the calls of a graph on masks alone."""

    def __init__(self, graph: Graph, terms: Terms, label: Label) -> None:
        self.graph, self.terms = graph, terms
        self.values = {i: self._leaf(label, i) for i in range(len(graph.shapes))}
        self.beside: dict[int, Term | None] = {}
        self.made: dict[int, Term] = {}
        self.received: dict[int, tuple[Term | None, ...]] = {}
        self.same: dict[int, int] = {}

    def _leaf(self, label: Label, index: int) -> Term:
        return self.terms.of(("tensor", label(index)), self.graph.shapes[index])

    def run(self, call: Call) -> None:
        """Find the masks of the outputs of a call."""
        operation = call.operation
        if not isinstance(operation, keras.Layer):
            self._value(call)
            self._alias(call)
            return
        masks: Sequence[Term | None] = [None] * len(call.outputs)
        arguments = _Arguments.of(call)
        previous = self._previous(arguments)
        reached = (*keras.tree.flatten(previous), *map(self.mask, call.inputs))
        masked = any(mask is not None for mask in reached)
        if isinstance(operation, keras.Model) and arguments.mask is not None:
            self._give(call, arguments.first, previous)
        self._receive(call, arguments, previous)
        if operation.supports_masking:
            masks = self._computed(call, arguments, previous)
        elif (masked and type(operation) not in OWN) or makes_masks(operation):
            masks = self._unknown(call, previous)
        elif masked:
            self._alias(call)
        for index, mask in zip(call.outputs, masks, strict=False):
            if mask is not None:
                self.beside[self._object(index)] = self.made[index] = mask
        if type(operation) in CLEARS:
            self.beside.update((self._object(i), None) for i in call.inputs)

    def _object(self, index: int) -> int:
        """The tensor that is the same object in memory."""
        return self.same.get(index, index)

    def mask(self, index: int) -> Term | None:
        """The mask that a tensor has now."""
        return self.beside.get(self._object(index))

    def _value(self, call: Call) -> None:
        """Write truth values down as expressions, since a mask may be computed from them."""
        for place, index in enumerate(call.outputs):
            if self.graph.dtypes[index] == "bool":
                parts = frozen(call._arguments, [("term", self.values[i]) for i in call.inputs])
                parts += [place] if place else []
                shape = self.graph.shapes[index]
                self.values[index] = self.terms.applied(call.operation, parts, shape)

    def _alias(self, call: Call) -> None:
        """An operation that does nothing may return its input, with the mask beside it."""
        source = next((i for i in call.inputs if self.mask(i) is not None), None)
        if source is None or not self._returns_its_input(call):
            return
        self.same[call.outputs[0]] = self._object(source)
        mask = self.mask(source)
        if mask is not None:
            self.made[call.outputs[0]] = mask

    def _returns_its_input(self, call: Call) -> bool:
        if len(call.inputs) != 1 or len(call.outputs) != 1:
            return False
        (before,), (after,) = call.inputs, call.outputs
        shapes = [self.graph.shapes[i] for i in (before, after)]
        if shapes[0] != shapes[1] or self.graph.dtypes[before] != self.graph.dtypes[after]:
            return False
        sizes = [2 if size is None else size for size in shapes[0]]
        probe = keras.ops.zeros(sizes, dtype=self.graph.dtypes[before])
        args, kwargs = call.arguments([probe])
        try:
            return call.operation.call(*args, **kwargs) is probe
        except Exception:  # of code by a user, on zeros
            return False

    def _previous(self, arguments: _Arguments) -> Any:
        """The masks of the first argument, or those that the call is given, in its structure."""

        def term(value: Any) -> Term | None:
            if isinstance(value, _Slot):
                return self.values[arguments.call.inputs[value.index]]
            return None if value is None else self.terms.of(("value", repr(value)))

        def beside(value: Any) -> Term | None:
            return (
                self.mask(arguments.call.inputs[value.index]) if isinstance(value, _Slot) else None
            )

        if arguments.mask is not None:
            return keras.tree.map_structure(term, arguments.mask)
        return keras.tree.map_structure(beside, arguments.first)

    def _receive(self, call: Call, arguments: _Arguments, previous: Any) -> None:
        """Write down the masks that a call may read."""
        kind = type(call.operation)
        alone = len(call.inputs) == 1 and not arguments.takes_masks
        if not may_read(call) or (alone and kind not in OWN and not makes_masks(call.operation)):
            return
        given = [self.values[call.inputs[slot.index]] for slot in arguments.masks]
        own = [self.mask(i) for i in call.inputs] if arguments.mask is None else []
        found = (*keras.tree.flatten(previous), *given, *own)
        if any(mask is not None for mask in found):
            self.received[id(call)] = found

    def _give(self, call: Call, tensors: Any, masks: Any) -> None:
        """A model puts the masks that it is given beside its inputs, for all who read them."""
        pairs = zip(keras.tree.flatten(tensors), keras.tree.flatten(masks), strict=False)
        for slot, mask in pairs:
            if isinstance(slot, _Slot) and mask is not None:
                self.beside[self._object(call.inputs[slot.index])] = mask

    def _computed(self, call: Call, arguments: _Arguments, previous: Any) -> list[Term | None]:
        """What the layer itself says that it computes of the masks of its first argument."""
        flat = keras.tree.flatten(previous)
        if not any(mask is not None for mask in flat) and not _overrides(call.operation):
            return [None] * len(call.outputs)
        leaves: dict[int, Term] = {}
        made = []

        def symbol(shape: Any, dtype: str, term: Term) -> keras.KerasTensor:
            made.append(keras.KerasTensor(shape, dtype))
            leaves[id(made[-1])] = term
            return made[-1]

        def tensor(value: Any) -> Any:
            if not isinstance(value, _Slot):
                return value
            index = call.inputs[value.index]
            return symbol(self.graph.shapes[index], self.graph.dtypes[index], self.values[index])

        def mask(term: Term | None) -> Any:
            return None if term is None else symbol(self.terms.shape(term), "bool", term)

        try:
            inputs = keras.tree.map_structure(tensor, arguments.first)
            masks = keras.tree.map_structure(mask, previous)
            found = keras.tree.flatten(call.operation.compute_mask(inputs, masks))
        except Exception:  # of code by a user, or of Keras for masks that do not fit
            return self._unknown(call, previous)
        found = [None] * len(call.outputs) if found == [None] else found
        return [None if m is None else self.terms.expression(m, leaves) for m in found]

    def _unknown(self, call: Call, previous: Any) -> list[Term | None]:
        """Masks of which only this is known: which call may compute them, and from what.

        The call whose output stands for the same tensor: another layer of the same type may compute
        another mask.
        """
        masks = tuple(keras.tree.flatten(previous))
        inputs = tuple(self.values[i] for i in call.inputs)
        kind: type = type(call.operation)
        # Of a Sequential model the copy is functional, which hands on the same masks.
        if is_opened(call.operation) and not call.operation.supports_masking:
            kind = keras.Model
        return [
            self.terms.of(
                ("unknown", kind, self.values[index], masks, inputs), self.graph.shapes[index][:-1]
            )
            for index in call.outputs
        ]


@dataclass(frozen=True)
class _Arguments:
    """The arguments of a call by what they are for; inputs are slots.

    Attributes:
        call: The call.
        first: The first argument.
        mask: The argument "mask".
        masks: The inputs among the other arguments that are masks.
        takes_masks: Whether the layer has arguments for masks.
    """

    call: Call
    first: Any
    mask: Any
    masks: tuple[_Slot, ...]
    takes_masks: bool

    @classmethod
    def of(cls, call: Call) -> _Arguments:
        args, kwargs = call.arguments([_Slot(i) for i in range(len(call.inputs))])
        signature = inspect.signature(call.operation.call)
        try:
            found = dict(signature.bind(*args, **kwargs).arguments)
        except TypeError:  # arguments of Layer.__call__ alone
            found = {**kwargs, "first": args[0]} if args else dict(kwargs)
        first = args[0] if args else next(iter(found.values()), None)
        given = [value for name, value in found.items() if name.endswith("_mask")]
        slots = [v for v in keras.tree.flatten(given) if isinstance(v, _Slot)]
        return cls(call, first, found.get("mask"), tuple(slots), _takes_masks(call))


def may_read(call: Call) -> bool:
    """Whether the values that a call computes, or its own masks, may depend on those it is given.

    Args:
        call: The call.
    """
    kind = type(call.operation)
    if not isinstance(call.operation, keras.Layer) or kind in INDIFFERENT:
        return False
    return _takes_masks(call) or len(call.inputs) > 1 or kind not in OWN


def _takes_masks(call: Call) -> bool:
    names = inspect.signature(call.operation.call).parameters
    return any(name == "mask" or name.endswith("_mask") for name in names)


def _overrides(layer: keras.Layer) -> bool:
    """Whether a layer computes masks in a way of its own."""
    return type(layer).compute_mask is not keras.Layer.compute_mask
