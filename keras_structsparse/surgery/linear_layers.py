"""Convolutions and dense layers: they mix channels linearly, then add a bias.

A removed constant input channel c_j still contributes to the outputs. If all output positions see
it alike, the contribution ``sum_j c_j k[..., j, :]`` is added to the bias. With zero padding that
is not possible: then one constant channel c is kept, the carrier, and its kernel slice becomes
``sum_j (c_j / c) k[..., j, :]`` over all constants.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels import weight_provenance
from keras_structsparse.graph.channels.constant_maps import computed
from keras_structsparse.graph.channels.rule import Channels, Flow, LinearRead, Site
from keras_structsparse.graph.channels.weight_provenance import Taken
from keras_structsparse.surgery.activation_functions import (
    activation_reason,
    is_elementwise,
    is_known,
)

Bias = Array | Taken | None
"""A new bias, one with recorded origin, or none."""


def unknown_weights(site: Site, known: Collection[str] = ("kernel", "bias")) -> str | None:
    """Why a rule refuses a layer with further weights, as of low-rank adapters; None without any.

    Args:
        site: The call site.
        known: The names of the weights that the rule handles.
    """
    extra = set(site.weights) - set(known)
    return f"it has weights that the rule does not know: {sorted(extra)}" if extra else None


def flow(site: Site, padded: bool) -> Flow:
    """What a linear layer does to channels.

    An output channel is live if its kernel reads a live channel, or a nonzero constant with zero
    padding around it. Otherwise it is constant: the activation of its bias.

    Args:
        site: The call site; its weights are "kernel" (*spatial, in, out) and maybe "bias".
        padded: Whether the layer pads its input with zeros.

    Returns:
        The flow.
    """
    inputs, kernel = site.inputs[0], _blocks(site)
    folds = _folds(site, padded)
    nonzero = (kernel != 0).any(axis=0)
    active = inputs.live if folds else inputs.live | inputs.offset
    live = (nonzero & _column(site, active)).any(axis=0).ravel()
    bias = _bias(site) + (_folded(site, ~inputs.live) if folds else 0.0)
    activation = site.operation.activation
    mixes = not is_elementwise(activation)
    notes = (activation_reason(activation),) if mixes and not live.all() else ()
    live = live | (mixes and (live.any() or not is_known(activation)))
    read = active & (computed(inputs) | ~inputs.live)
    share = float(read.sum()) / len(active)
    output = Channels(
        ids=site.fresh(len(bias)),
        live=live,
        value=np.zeros_like(bias) if live.all() else _constants(site, live, bias),
        cost=np.full(len(bias), positions(site) * math.prod(kernel.shape[:2]) * share),
    )

    packed = np.packbits(nonzero, axis=-1)  # one bit per entry: kept during the whole surgery

    def needs(needed: Array) -> tuple[Array, ...]:
        columns = np.packbits(needed.reshape(kernel.shape[2:]), axis=-1)
        used = (packed & columns).any(axis=-1).T.ravel()
        return (inputs.ids[computed(inputs) & used],)

    return Flow(
        output,
        keeps=(output.ids,) if mixes else (),
        needs=needs,
        reads=(LinearRead(inputs, output.ids, groups_of(site), carries=not folds),),
        blocks=groups_of(site) == 1,
        notes=notes,
    )


def shrunk(site: Site, rows: Array, columns: Array, padded: bool) -> tuple[Taken, Bias]:
    """The kernel and the bias over the kept channels, corrected for the removed constants.

    Args:
        site: The call site.
        rows: The kept input channels, in order.
        columns: The kept output channels, in order.
        padded: Whether the layer pads its input with zeros.

    Returns:
        The kernel (*spatial, in, out) and the bias (out,); corrected entries are in float64. The
        bias is None if the layer has none and needs none.
    """
    if groups_of(site) == 1:
        return _shrunk(site, rows, columns, padded)
    parts = list(_groups(site, rows, columns))
    found = [_shrunk(*part, padded) for part in parts]
    kernel = np.concatenate([kernel.values for kernel, _ in found], axis=-1)
    widths = [len(part[2]) for part in parts]
    bias = np.concatenate([_values(b, width) for (_, b), width in zip(found, widths, strict=True)])
    rows_of_groups = [part[1] for part in parts]
    return _of_groups(site, rows_of_groups, columns, kernel), _known(site, columns, bias)


def _shrunk(site: Site, rows: Array, columns: Array, padded: bool) -> tuple[Taken, Bias]:
    """The kernel and the bias of an ungrouped layer."""
    inputs, taken = site.inputs[0], site.taken("kernel").along(-1, columns)
    removed, kernel = _removed_constants(site, rows), taken.along(-2, rows)
    if removed.any() and not _folds(site, padded):
        constants = np.where(inputs.offset, np.abs(inputs.value), 0.0)[rows]
        carrier = int(np.argmax(constants))
        ratio = inputs.value[removed] / inputs.value[rows[carrier]]
        values = kernel.values.astype(np.float64)
        values[..., carrier, :] += np.einsum("j,...jo->...o", ratio, taken.values[..., removed, :])
        kernel = kernel.holding(values)
    return kernel, shrunk_bias(site, rows, columns, padded)


def shrunk_bias(site: Site, rows: Array, columns: Array, padded: bool) -> Bias:
    """The bias that :func:`shrunk` returns; takes the same arguments."""
    bias = _bias(site)[columns]
    if _folds(site, padded):
        bias = bias + _folded(site, _removed_constants(site, rows))[columns]
    return _known(site, columns, bias)


def _known(site: Site, columns: Array, bias: Array) -> Bias:
    """Record the origin of a bias; None if the layer has no bias and the new one is zero."""
    if "bias" in site.weights:
        return site.taken("bias").along(0, columns).holding(bias)
    return bias if bias.any() else None


def _values(bias: Bias, width: int) -> Array:
    if bias is None:
        return np.zeros(width)
    return bias.values if isinstance(bias, Taken) else bias


def _removed_constants(site: Site, rows: Array) -> Array:
    """Which input channels are nonzero constants that are removed (in,)."""
    inputs = site.inputs[0]
    return inputs.offset & ~np.isin(np.arange(len(inputs)), rows)


def _of_groups(site: Site, rows: Sequence[Array], columns: Array, kernel: Array) -> Taken:
    """A grouped kernel; its entries have a recorded origin if all groups keep the same rows."""
    if any(not np.array_equal(rows[0], other) for other in rows):
        return weight_provenance.new(kernel)
    return site.taken("kernel").along(-1, columns).along(-2, rows[0]).holding(kernel)


def _groups(site: Site, rows: Array, columns: Array) -> Iterator[tuple[Site, Array, Array]]:
    """The groups with a kept output, each as the site of an ungrouped layer, rows and columns."""
    (inputs,) = site.inputs
    deep, wide = (len(values) // groups_of(site) for values in (inputs, _bias(site)))
    for group in np.unique(columns // wide):
        outputs = np.arange(group * wide, (group + 1) * wide)
        part = replace(
            site,
            weights={name: value[..., outputs] for name, value in site.weights.items()},
            inputs=(inputs.part(np.arange(group * deep, (group + 1) * deep)),),
        )
        yield (
            part,
            *(
                index[index // size == group] % size
                for index, size in ((rows, deep), (columns, wide))
            ),
        )


def read_rows(site: Site, order: Array, columns: Array) -> Array:
    """The input channels that a layer reads for its kept output channels.

    Args:
        site: The call site.
        order: The input channels that the new input holds.
        columns: The kept output channels.

    Returns:
        All of ``order`` for an ungrouped layer. For a grouped one, the input channels of the groups
        of ``columns``, in order of the groups.
    """
    groups = groups_of(site)
    if groups == 1:
        return order
    of_rows = order // (len(site.inputs[0]) // groups)
    rows = order[np.isin(of_rows, columns // (len(_bias(site)) // groups))]
    return np.sort(rows)


def _folds(site: Site, padded: bool) -> bool:
    """Whether removed constants are moved into the bias, rather than carried."""
    return site.constants != "exact" or not (padded or site.inputs[0].border)


def _folded(site: Site, which: Array) -> Array:
    """The contribution of the constant channels ``which`` to every output channel (out,)."""
    if site.constants == "drop":
        return np.zeros(site.weights["kernel"].shape[-1])
    values = np.where(which, site.inputs[0].value, 0.0)
    used = which.reshape(groups_of(site), -1).any(axis=0)
    sums = _blocks(site)[:, used].sum(axis=0, dtype=np.float64)
    return np.einsum("ngo,ng->go", sums, _column(site, values)[used, :, 0]).ravel()


def groups_of(site: Site) -> int:
    """Number of groups of the convolution."""
    return len(site.inputs[0]) // int(site.weights["kernel"].shape[-2])


def _blocks(site: Site) -> Array:
    """The kernel reshaped to (positions, inputs of a group, groups, outputs of a group)."""
    kernel, groups = site.weights["kernel"], groups_of(site)
    *_, inputs, outputs = kernel.shape
    return kernel.reshape(-1, inputs, groups, outputs // groups)


def _column(site: Site, values: Array) -> Array:
    """Values of the inputs reshaped to (inputs of a group, groups, 1)."""
    return values.reshape(groups_of(site), -1).T[:, :, None]


def _bias(site: Site) -> Array:
    width = site.weights["kernel"].shape[-1]
    return np.asarray(site.weights.get("bias", np.zeros(width)), np.float64)


def activated(site: Site, values: Array) -> Array:
    """The activation function of the layer at values (channels,), in float64."""
    tensor = keras.ops.convert_to_tensor(values, dtype="float64")
    return np.asarray(keras.ops.convert_to_numpy(site.operation.activation(tensor)), np.float64)


def _constants(site: Site, live: Array, bias: Array) -> Array:
    """The values of the constant outputs (out,), 0 where an output is live."""
    return np.where(live, 0.0, activated(site, np.where(live, 0.0, bias)))


def positions(site: Site) -> int:
    """Number of positions of the output map; an open size counts as 1."""
    return math.prod(size or 1 for size in site.output_shape[1:-1])
