"""What is known of the channels of a tensor, and what a layer does with them.

Every channel of every tensor has a number. Layers that pass a channel on (activations, pooling,
flattening, concatenation) pass its number on, so that one decision, to keep a number or not, holds
wherever the channel goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from keras_structsparse._typing import Array, Shape, Tensor
from keras_structsparse.graph.channels import weight_provenance
from keras_structsparse.graph.channels.costs import Realization
from keras_structsparse.graph.channels.weight_provenance import Taken
from keras_structsparse.graph.cloning import unset


@dataclass(frozen=True)
class Channels:
    """The channels of one tensor, in their original order.

    Attributes:
        ids: The number of each channel.
        live: Whether the channel depends on the input of the network.
        value: The value of a channel that does not, everywhere; unused where ``live``.
        cost: Multiply-adds spent on making the channel.
        border: Empty, or the name of the call whose zero border surrounds the constants: then a
            constant channel is ``value`` times one spatial pattern that all of them share.
        axis: Where the channels are: -1 for the last axis, 1 for the one behind the batch.
    """

    ids: Array
    live: Array
    value: Array
    cost: Array
    border: str = ""
    axis: int = -1

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def offset(self) -> Array:
        """Whether the channel is a constant other than zero."""
        return ~self.live & (self.value != 0)

    def passed(self, **changes: Any) -> Channels:
        """These channels with some attributes replaced."""
        return replace(self, **changes)

    def part(self, which: Array) -> Channels:
        """Some of these channels, by index."""
        fields = {name: getattr(self, name)[which] for name in ("ids", "live", "value", "cost")}
        return replace(self, **fields)


def unknown(ids: Array, axis: int = -1) -> Channels:
    """Channels of which nothing is known: all live, at no cost."""
    nothing = np.zeros(len(ids))
    return Channels(ids, np.ones(len(ids), bool), nothing, nothing, axis=axis)


def channels_last(shape: Shape, axis: int) -> Shape:
    """A shape with the channels, which are on some axis, moved to the end."""
    return shape if axis == -1 or len(shape) < 3 else (shape[0], *shape[2:], shape[1])


@dataclass(frozen=True)
class Site:
    """One call of one layer, as a rule sees it.

    Attributes:
        name: Name of the call.
        layer_name: Name of the new layer.
        derive: From a suffix to a name for one more new layer, different from all others.
        operation: The layer.
        weights: Its weights by name, with the plan's entries set to zero.
        inputs: The channels of the tensors it reads.
        shapes: The original shapes of these tensors, with their channels moved to the end.
        output_shape: The original shape of the tensor it makes, likewise.
        dtype: The type of that tensor.
        constants: "exact", "interior" or "drop": what becomes of the constants of removed
            channels where layers read them.
        realize: How kernels of several sizes become convolutions, and what operations cost.
        fresh: Gives new channel numbers.
        fill: Puts tensors in the places of the call's inputs.
    """

    name: str
    layer_name: str
    derive: Callable[[str], str]
    operation: keras.Operation
    weights: Mapping[str, Array]
    inputs: tuple[Channels, ...]
    shapes: tuple[Shape, ...]
    output_shape: Shape
    dtype: str
    constants: str
    realize: Realization
    fresh: Callable[[int], Array]
    fill: Callable[[Sequence[Tensor]], tuple[tuple[Any, ...], dict[str, Any]]]

    @property
    def axis(self) -> int:
        """Where the channels of the inputs are: -1 for the last axis, 1 for the first."""
        return self.inputs[0].axis if self.inputs else -1

    @property
    def data_format(self) -> str:
        """The same in the words of Keras."""
        return "channels_last" if self.axis == -1 else "channels_first"

    def taken(self, name: str) -> Taken:
        """A weight that knows where its entries come from, whatever part of it is taken."""
        names = [weight.name for weight in self.operation.weights]
        return weight_provenance.whole(self.weights[name], self.operation, names.index(name))


@dataclass(frozen=True)
class Reading:
    """How a layer reads a tensor: each group of its outputs reads a group of the inputs.

    Of every group that has an output left equally many inputs, at least one, and equally many
    outputs stay; the other groups go.

    Attributes:
        inputs: The channels of the tensor.
        outputs: The numbers of the channels that the layer makes.
        groups: The number of groups, each as many neighbouring channels.
        carries: Whether constants cannot go into the bias: then one constant channel of each
            group stands for all that are removed.
    """

    inputs: Channels
    outputs: Array
    groups: int = 1
    carries: bool = False

    def grouped(self, values: Array) -> Array:
        """Values of the inputs, or of the outputs, as an array (groups, channels of a group)."""
        return np.reshape(values, (self.groups, -1))


def nothing(needed: Array) -> tuple[Array, ...]:
    """No numbers but those of the output itself."""
    return ()


@dataclass(frozen=True)
class Flow:
    """What one call does to channels.

    Attributes:
        output: The channels of its output.
        joins: Pairs of arrays of numbers that must be kept or removed together.
        keeps: Arrays of numbers that must be kept.
        needs: From the mask of the output channels that something needs to the numbers that the
            call needs for them, besides those of these channels themselves.
        reads: How the call reads inputs of which some channels must stay with the output.
        blocks: Whether it computes the output channels in blocks: rounding applies to it.
        parts: For a call of several outputs, which channels of ``output`` each of them holds.
        sizes: For each output channel a key: the layer gains by having equal keys side by side.
        gain: Multiply-adds that it gains by that.
        notes: What could not be done, and why.
    """

    output: Channels
    joins: tuple[tuple[Array, Array], ...] = ()
    keeps: tuple[Array, ...] = ()
    needs: Callable[[Array], tuple[Array, ...]] = nothing
    reads: tuple[Reading, ...] = ()
    blocks: bool = False
    parts: tuple[Array, ...] = ()
    sizes: Array = None
    gain: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def outputs(self) -> tuple[Channels, ...]:
        """The channels of each output of the call."""
        return tuple(map(self.output.part, self.parts)) or (self.output,)


@dataclass(frozen=True)
class Piece:
    """A new tensor and what it holds.

    Attributes:
        tensor: The tensor.
        order: The original channels that it holds, in its own order.
    """

    tensor: Tensor
    order: Array

    def mask(self, width: int) -> Array:
        """Which of ``width`` original channels the tensor holds."""
        return np.isin(np.arange(width), self.order)


def never(site: Site) -> str | None:
    """Refuse nothing."""
    return None


@dataclass(frozen=True)
class Rule:
    """How the channels of one family of layers flow, and how such a layer shrinks.

    Attributes:
        flow: From a site to what the call does with the channels.
        build: From a site, the output channels that stay, in the order they would best have, and
            the new inputs (None for a tensor without channels) to the new output; to one for each
            output of the call (None likewise), if the rule splits.
        refuses: From a site to the reason why the rule cannot serve it, or None.
        borders: Whether ``flow`` understands constants with a border; elsewhere they count as
            live.
        splits: Whether calls may have several outputs.
        channels_first: Whether the rule understands channels on the first axis; one that does
            not is never asked.
    """

    flow: Callable[[Site], Flow]
    build: Callable[[Site, Array, Sequence[Piece | None]], Piece | list[Piece | None]]
    refuses: Callable[[Site], str | None] = field(default=never)
    borders: bool = False
    splits: bool = False
    channels_first: bool = False


def misplaced(site: Site) -> str | None:
    """Why the layer's data format does not fit its input; None if it does."""
    expected = getattr(site.operation, "data_format", "channels_last")
    if site.data_format == expected or len(site.shapes[0]) < 3:
        return None
    return f"its data format is {expected}, that of its input {site.data_format}"


def emit(layer: keras.Layer, tensor: Tensor, weights: Sequence[Array | Taken] = ()) -> Tensor:
    """Call a new layer on a tensor and give it its weights.

    Of weights made with :meth:`Site.taken` it is remembered where they come from: an optimizer's
    state can follow them. Others count as new.
    """
    if not weights:
        return layer(tensor)
    with unset(layer):
        output = layer(tensor)
    weight_provenance.assign(layer, weights)
    return output
