"""The channels of tensors, and the rules that say what layers do with them.

Every channel of every tensor has a number. A layer that passes a channel on (activation, pooling,
flattening, concatenation) keeps its number, so the decision to keep or remove a number holds for
every tensor that contains the channel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from keras_structsparse._typing import Array, Shape, Tensor
from keras_structsparse.graph.channels import weight_provenance
from keras_structsparse.graph.channels.splitting import Realization
from keras_structsparse.graph.channels.weight_provenance import Taken
from keras_structsparse.graph.cloning import unset


@dataclass(frozen=True)
class Channels:
    """The channels of one tensor, in their original order.

    Attributes:
        ids: The number of each channel (channels,).
        live: Whether the channel depends on the input of the network (channels,).
        value: The value of a constant channel at all positions (channels,); unused where ``live``.
        cost: Multiply-adds that compute the channel (channels,).
        border: Empty, or the name of the call whose zero padding surrounds the constants. Then
            every constant channel is ``value`` times one spatial pattern that all of them share.
        axis: The axis of the channels: -1 for the last, 1 for the one after the batch.
        maps: The constant maps (*spatial,) by index: channels that do not depend on the input, but
            differ between positions. They are ``live`` too, for rules without constant maps.
    """

    ids: Array
    live: Array
    value: Array
    cost: Array
    border: str = ""
    axis: int = -1
    maps: Mapping[int, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def offset(self) -> Array:
        """Whether the channel is a nonzero constant (channels,)."""
        return ~self.live & (self.value != 0)

    def passed(self, **changes: Any) -> Channels:
        """A copy of these channels with some attributes replaced."""
        return replace(self, **changes)

    def part(self, which: Array) -> Channels:
        """Some of these channels, by index or mask."""
        fields = {name: getattr(self, name)[which] for name in ("ids", "live", "value", "cost")}
        return replace(self, maps={}, **fields)


def unknown(ids: Array, axis: int = -1) -> Channels:
    """Channels (channels,) without any information: all live, at no cost."""
    nothing = np.zeros(len(ids))
    return Channels(ids, np.ones(len(ids), bool), nothing, nothing, axis=axis)


def channels_last(shape: Shape, axis: int) -> Shape:
    """A shape, batch axis first, with its channel axis (-1 or 1) moved to the end."""
    return shape if axis == -1 or len(shape) < 3 else (shape[0], *shape[2:], shape[1])


@dataclass(frozen=True)
class Site:
    """A call site: one call of one layer, with all that a rule needs to know.

    Attributes:
        name: Name of the call.
        layer_name: Name for the new layer.
        derive: From a suffix to a unique name for one more new layer.
        operation: The original layer.
        weights: Its weights by name, with the entries that the plan removes set to zero.
        inputs: The channels of its input tensors.
        shapes: The original shapes of its input tensors, with the channels moved to the end.
        output_shape: The original shape of its (first) output, likewise.
        dtype: The dtype of that output.
        constants: How readers replace those of removed channels: "exact", "interior" or "drop".
        realize: How kernels of several sizes become convolutions, with the cost model.
        fresh: From a count to so many new channel numbers.
        fill: From tensors to the arguments of the call, with the tensors in place of its inputs.
        same_shape: Whether its inputs always have the same shape, whatever the open sizes are.
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
    same_shape: Callable[[], bool] = lambda: False

    @property
    def axis(self) -> int:
        """The axis of the channels of the inputs: -1 (channels last) or 1 (channels first)."""
        return self.inputs[0].axis if self.inputs else -1

    @property
    def data_format(self) -> str:
        """The data format of the inputs, as Keras names it."""
        return "channels_last" if self.axis == -1 else "channels_first"

    def taken(self, name: str) -> Taken:
        """A weight that records the origin of its entries, also when parts of it are taken."""
        names = [weight.name for weight in self.operation.weights]
        return weight_provenance.whole(self.weights[name], self.operation, names.index(name))


@dataclass(frozen=True)
class LinearRead:
    """How a linear layer reads a tensor: each group of outputs reads one group of inputs.

    Groups without a kept output are removed. The others keep equally many inputs and outputs.

    Attributes:
        inputs: The channels of the tensor.
        outputs: The numbers of the channels that the layer computes.
        groups: The number of groups; each consists of neighbouring channels.
        carries: Whether constants cannot be moved into the bias. Then each group keeps one
            constant channel, the carrier, that stands for all removed constants.
        singles: Whether every group reads one channel, groups can have any order, and one whose
            kernel is zero can read any channel, as in a depthwise convolution.
    """

    inputs: Channels
    outputs: Array
    groups: int = 1
    carries: bool = False
    singles: bool = False

    def grouped(self, values: Array) -> Array:
        """Reshape values of the inputs or outputs to (groups, channels of a group)."""
        return np.reshape(values, (self.groups, -1))


def nothing(needed: Array) -> tuple[Array, ...]:
    """The default of :attr:`Flow.needs`: no channels besides those of the output itself."""
    return ()


@dataclass(frozen=True)
class Flow:
    """What one call does to channels.

    Attributes:
        output: The channels of its output.
        joins: Pairs of arrays of channel numbers that must be kept or removed together.
        keeps: Arrays of channel numbers that must be kept.
        needs: From the mask of the output channels that are needed to arrays of the channel
            numbers that the call needs to compute them; channels passed on are left out.
        reads: How the call reads inputs, if it is linear.
        blocks: Whether runtimes compute its output channels in blocks: then ``round_to`` applies.
        least_width: The fewest output channels of a new layer that has any; zeros fill it up.
        parts: For a call with several outputs, the channels of ``output`` that each one holds.
        sizes: A key for each output channel (channels,); equal keys should be side by side.
        gain: Multiply-adds saved if the channels are sorted by ``sizes``.
        ordered: Whether the channels of its inputs and outputs must keep their order.
        notes: What could not be removed, and why.
    """

    output: Channels
    joins: tuple[tuple[Array, Array], ...] = ()
    keeps: tuple[Array, ...] = ()
    needs: Callable[[Array], tuple[Array, ...]] = nothing
    reads: tuple[LinearRead, ...] = ()
    blocks: bool = False
    least_width: int = 0
    parts: tuple[Array, ...] = ()
    sizes: Array = None
    gain: float = 0.0
    ordered: bool = False
    notes: tuple[str, ...] = ()

    @property
    def outputs(self) -> tuple[Channels, ...]:
        """The channels of each output of the call."""
        return tuple(map(self.output.part, self.parts)) or (self.output,)


@dataclass(frozen=True)
class Piece:
    """A tensor of the new network: a piece of an original one.

    Attributes:
        tensor: The tensor.
        order: The indices of the original channels that it holds, in its own order.
    """

    tensor: Tensor
    order: Array

    def mask(self, width: int) -> Array:
        """Which of ``width`` original channels the tensor holds (width,)."""
        return np.isin(np.arange(width), self.order)


def only(pieces: Sequence[Piece | None]) -> Piece:
    """The input of a call that reads one tensor.

    Args:
        pieces: What :attr:`Rule.build` receives.

    Returns:
        The single piece. A call is built only if an output, and so an input channel, is kept.

    Raises:
        ValueError: There are several pieces, or none.
    """
    if len(pieces) != 1 or pieces[0] is None:
        raise ValueError(f"only: expected one piece. Received: {list(pieces)!r}")
    return pieces[0]


def never(site: Site) -> str | None:
    """The default of :attr:`Rule.refuses`: refuse no call."""
    return None


@dataclass(frozen=True)
class Rule:
    """How surgery treats the calls of one type of layer.

    Attributes:
        flow: From a site to what the call does to channels.
        build: From a site, the output channels that are kept, in the preferred order, and the new
            inputs (None for an input without channels left), to the new output. If the rule
            splits: to a list with a piece, or None, for each output of the call.
        refuses: From a site to the reason why the rule cannot treat it, or None. A refused call is
            copied unchanged with all its channels, and the reason becomes a note.
        borders: Whether ``flow`` handles constants behind zero padding
            (:attr:`Channels.border`); for other rules they count as live.
        splits: Whether calls may have several outputs.
        channels_first: Whether the rule is used for calls with channels on axis 1.
        maps: From a site to whether ``flow`` understands constant maps (:attr:`Channels.maps`).
            If not, it sees live channels.
    """

    flow: Callable[[Site], Flow]
    build: Callable[[Site, Array, Sequence[Piece | None]], Piece | list[Piece | None]]
    refuses: Callable[[Site], str | None] = field(default=never)
    borders: bool = False
    splits: bool = False
    channels_first: bool = False
    maps: Callable[[Site], bool] = field(default=lambda site: False)


def misplaced(site: Site) -> str | None:
    """Why the data format of the layer does not match that of its input; None if it does."""
    expected = getattr(site.operation, "data_format", "channels_last")
    if site.data_format == expected or len(site.shapes[0]) < 3:
        return None
    return f"its data format is {expected}, that of its input {site.data_format}"


def emit(
    layer: keras.Layer,
    tensor: Tensor,
    weights: Sequence[Array | Taken] = (),
    arguments: tuple[tuple[Any, ...], Mapping[str, Any]] | None = None,
) -> Tensor:
    """Call a new layer on a tensor and set its weights.

    The origin of weights made with :meth:`Site.taken` is recorded; plain arrays count as new ones.

    Args:
        layer: A layer that is not built.
        tensor: Its input.
        weights: Its weights in the order of ``layer.weights``; without any, it keeps its own.
        arguments: Those of the call, as :attr:`Site.fill` gives them; by default the tensor alone.

    Returns:
        The output of the layer.
    """
    args, kwargs = arguments or ((tensor,), {})
    if not weights:
        return layer(*args, **kwargs)
    with unset(layer):
        output = layer(*args, **kwargs)
    weight_provenance.assign(layer, weights)
    return output
