"""Compare the masks beside the tensors of a rebuilt network with those of the original."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np

from keras_structsparse._typing import Array, Tensor
from keras_structsparse.errors import ModelError
from keras_structsparse.graph.bare_operations import operation_type
from keras_structsparse.graph.functional_graph import Call, Graph, read
from keras_structsparse.graph.mask_terms import Term, Terms
from keras_structsparse.graph.masks import Masks, follow, may_read

Product = operation_type(keras.ops.multiply, 2)

New = Mapping[int, tuple[Tensor, Array | None]]
"""By tensor of the original graph, the new one and the channels that it holds; None for all."""

REASON = "without the removed channels, another mask would be beside its output"


@dataclass(frozen=True)
class Change:
    """A call behind which the masks of the rebuilt network differ, though they agree before it.

    Attributes:
        call: The call of the original graph.
        is_lost: Whether the original has no mask there.
        is_copied: Whether the call was copied unchanged.
    """

    call: Call
    is_lost: bool
    is_copied: bool


@dataclass(frozen=True)
class Settled:
    """What has to be built in another way for the masks to be those of the original.

    Attributes:
        kept: Why some calls, by ``id``, are copied unchanged.
        unmasked: The calls, by ``id``, from whose outputs the mask is taken off.
    """

    kept: Mapping[int, str] = field(default_factory=dict)
    unmasked: frozenset[int] = frozenset()

    def after(self, graph: Graph, changes: Sequence[Change]) -> Settled:
        """What must be settled besides, because of changes that are still there.

        Args:
            graph: The original graph.
            changes: The changes.

        Raises:
            ModelError: There is nothing left to try for any of these changes.
        """
        open_ = [change for change in changes if not change.is_copied]
        if not open_:
            call = changes[0].call
            raise ModelError(
                f"Model '{graph.model.name}': layer '{call.name}' "
                f"({type(call.operation).__name__}): expected surgery to hand on the masks that it "
                "receives in the model. Received others, even with the layer kept as it is."
            )
        lost = {id(c.call) for c in open_ if c.is_lost} - self.unmasked
        kept = {id(c.call): REASON for c in open_ if id(c.call) not in lost}
        return Settled({**self.kept, **kept}, (self.unmasked | lost) - kept.keys())


def without_mask(tensor: Tensor, name: str) -> Tensor:
    """The same values without the mask beside them, which bare operations drop.

    Args:
        tensor: A symbolic tensor.
        name: The name of the operation.
    """
    # A product: a reshape or a slice that changes nothing may return its input, with its mask.
    return Product(name=name)(tensor, 1)


def changed_masks(
    graph: Graph, model: keras.Model, new: New, copied: Collection[int]
) -> list[Change]:
    """The first calls behind which the masks of a rebuilt model differ from those of the original.

    Args:
        graph: The original graph.
        model: The rebuilt model.
        new: What became of each tensor.
        copied: The calls, by ``id``, that were copied unchanged.

    Returns:
        The calls whose outputs have other masks, or that read other masks, though the outputs of
        all calls before them agree. Empty if the two models hand on the same masks.
    """
    before = follow(graph)
    if not before.beside and not before.received:
        return []
    pair = _Pair.of(graph, model, new)
    read = pair.tensors_with_read_masks(graph)
    changes: list[Change] = []
    wrong: set[int] = set()
    for call in graph.calls:
        tensors = [index for index in call.outputs if index in pair.places]
        differ = any(pair.differs(index) for index in tensors if index in read)
        if wrong.intersection(call.inputs):
            wrong.update(call.outputs)
        elif differ or pair.reads_other(call, tensors):
            wrong.update(call.outputs)
            lost = not any(index in pair.before.beside for index in tensors)
            changes.append(Change(call, lost, id(call) in copied))
    if not changes and pair.ends_otherwise(graph):
        changes.append(Change(graph.calls[-1], False, True))
    return changes


@dataclass(frozen=True)
class _Pair:
    """The masks of two graphs, in common terms.

    Attributes:
        places: By tensor of the original graph, its place in the new one.
        before: The masks of the original graph.
        after: The masks of the new one.
        makers: The call that computes each tensor of the new graph.
    """

    places: Mapping[int, int]
    before: Masks
    after: Masks
    makers: Mapping[int, Call]

    @classmethod
    def of(cls, graph: Graph, model: keras.Model, new: New) -> _Pair:
        other = read(model, nested=False)  # as copies, only those that the original keeps whole
        numbers = {id(tensor): index for index, tensor in enumerate(other.tensors)}
        places = dict(zip(graph.inputs, other.inputs, strict=True))
        # A tensor that no output needs is not part of the new graph.
        places |= {i: numbers[id(t)] for i, (t, _) in new.items() if id(t) in numbers}
        whole = [i for i in places if _is_whole(graph, i, new)]
        # The smallest number, for several tensors of the original that became one.
        stands_for = {places[i]: i for i in sorted(whole, reverse=True)}
        same = {i: stands_for[places[i]] for i in whole}
        terms = Terms()
        before = follow(graph, terms, lambda i: same.get(i, i))
        after = follow(other, terms, lambda i: stands_for.get(i, ("new", i)))
        return cls(places, before, after, {i: c for c in other.calls for i in c.outputs})

    def differs(self, index: int) -> bool:
        """Whether a tensor of the original and its counterpart have different masks."""
        return self.before.beside.get(index) != self.after.beside.get(self.places[index])

    def reads_other(self, call: Call, tensors: Sequence[int]) -> bool:
        """Whether the layer of a call receives another mask in the new graph."""
        if not tensors or self.places[tensors[0]] not in self.makers:
            return False
        maker = self.makers[self.places[tensors[0]]]
        return self._read(self.before, call) != self._read(self.after, maker)

    def tensors_with_read_masks(self, graph: Graph) -> set[int]:
        """The tensors of the original graph whose masks any layer reads, now or later."""
        found = set(graph.outputs)
        for call in reversed(graph.calls):
            hands_on = any(i in found and self._has_mask(i) for i in call.outputs)
            if may_read(call) or hands_on:
                found.update(call.inputs)
        return found

    def _has_mask(self, index: int) -> bool:
        return index in self.before.beside or self.places.get(index) in self.after.beside

    def ends_otherwise(self, graph: Graph) -> bool:
        """Whether an output has another mask at the end, which a loss would read."""
        before, after = self.before.finally_, self.after.finally_
        return any(before[i] != after[self.places[i]] for i in graph.outputs)

    def _read(self, masks: Masks, call: Call) -> tuple[Term | None, ...]:
        return masks.received.get(id(call), ()) if masks.reads(call) else ()


def _is_whole(graph: Graph, index: int, new: New) -> bool:
    """Whether a new tensor holds all channels of the original one in their order."""
    order = new[index][1] if index in new else None
    return order is None or np.array_equal(order, np.arange(graph.shapes[index][-1] or 0))
