"""What convolutions and dense layers share: they mix channels linearly, then add a bias.

A removed input channel that is constant leaves something behind. Where every output position sees
it alike, ``sum_j c_j k[..., j, :]`` goes into the bias. Behind a border it cannot: there one
constant channel c stays, the carrier, with the kernel slice ``sum_j (c_j / c) k[..., j, :]``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import activations

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels import weight_provenance
from keras_structsparse.graph.channels.rule import Channels, Flow, LinearRead, Site
from keras_structsparse.graph.channels.weight_provenance import Taken

ELEMENTWISE = frozenset(
    {
        activations.celu,
        activations.elu,
        activations.exponential,
        activations.gelu,
        activations.hard_shrink,
        activations.hard_sigmoid,
        activations.hard_silu,
        activations.hard_tanh,
        activations.leaky_relu,
        activations.linear,
        activations.log_sigmoid,
        activations.mish,
        activations.relu,
        activations.relu6,
        activations.selu,
        activations.sigmoid,
        activations.silu,
        activations.soft_shrink,
        activations.softplus,
        activations.softsign,
        activations.sparse_plus,
        activations.squareplus,
        activations.tanh,
        activations.tanh_shrink,
        activations.threshold,
    }
)


def is_elementwise(activation: Any) -> bool:
    """Whether an activation function is known to treat every channel by itself."""
    try:
        return activation in ELEMENTWISE
    except TypeError:
        return False


def flow(site: Site, padded: bool) -> Flow:
    """The channels behind a linear layer.

    Args:
        site: The call of the layer; its weights hold "kernel" and maybe "bias".
        padded: Whether the layer sees zeros beyond the border of its input.

    Returns:
        An output channel is live if its kernel reads a live channel, or a constant that ends at a
        border; else it is the constant bias.
    """
    inputs, kernel = site.inputs[0], _blocks(site)
    folds = _folds(site, padded)
    reading = (kernel != 0).any(axis=0)
    active = inputs.live if folds else inputs.live | inputs.offset
    live = (reading & _column(site, active)).any(axis=0).ravel()
    bias = _bias(site) + (_folded(site, ~inputs.live) if folds else 0.0)
    activation = site.operation.activation
    mixes = not is_elementwise(activation)
    notes = ("its activation mixes channels",) if mixes and not live.all() else ()
    live = live | (mixes and live.any())
    share = float(active.sum()) / len(active)
    output = Channels(
        ids=site.fresh(len(bias)),
        live=live,
        value=np.where(live, 0.0, activated(site, np.where(live, 0.0, bias))),
        cost=np.full(len(bias), positions(site) * math.prod(kernel.shape[:2]) * share),
    )

    packed = np.packbits(reading, axis=-1)  # kept for the whole surgery: a bit for an entry

    def needs(needed: Array) -> tuple[Array, ...]:
        columns = np.packbits(needed.reshape(kernel.shape[2:]), axis=-1)
        read = (packed & columns).any(axis=-1).T.ravel()
        return (inputs.ids[inputs.live & read],)

    return Flow(
        output,
        keeps=(output.ids,) if mixes else (),
        needs=needs,
        reads=(LinearRead(inputs, output.ids, groups_of(site), carries=not folds),),
        blocks=groups_of(site) == 1,
        notes=notes,
    )


def shrunk(
    site: Site, rows: Array, columns: Array, padded: bool
) -> tuple[Taken, Array | Taken | None]:
    """The kernel over the kept channels, and the bias, with all that removed channels leave.

    Args:
        site: The call of the layer.
        rows: The input channels that stay, in order.
        columns: The output channels that stay, in order.
        padded: Whether the layer sees zeros beyond the border of its input.

    Returns:
        The kernel (..., inputs, outputs) and the bias (outputs,), or None where there is neither a
        bias nor anything to put into it. What is not as it was is in float64.
    """
    if groups_of(site) == 1:
        return _shrunk(site, rows, columns, padded)
    parts = list(_groups(site, rows, columns))
    found = [_shrunk(*part, padded) for part in parts]
    kernel = np.concatenate([kernel.values for kernel, _ in found], axis=-1)
    widths = [len(part[2]) for part in parts]
    bias = np.concatenate([_values(b, width) for (_, b), width in zip(found, widths, strict=True)])
    return _of_groups(site, [part[1] for part in parts], columns, kernel), _known(
        site, columns, bias
    )


def _shrunk(
    site: Site, rows: Array, columns: Array, padded: bool
) -> tuple[Taken, Array | Taken | None]:
    """The kernel and the bias of a layer without groups."""
    inputs, taken = site.inputs[0], site.taken("kernel").along(-1, columns)
    gone, kernel = _gone(site, rows), taken.along(-2, rows)
    if gone.any() and not _folds(site, padded):
        constants = np.where(inputs.offset, np.abs(inputs.value), 0.0)[rows]
        slot = int(np.argmax(constants))
        share = inputs.value[gone] / inputs.value[rows[slot]]
        values = kernel.values.astype(np.float64)
        values[..., slot, :] += np.einsum("j,...jo->...o", share, taken.values[..., gone, :])
        kernel = kernel.holding(values)
    return kernel, shrunk_bias(site, rows, columns, padded)


def shrunk_bias(site: Site, rows: Array, columns: Array, padded: bool) -> Array | Taken | None:
    """The bias that :func:`shrunk` returns, without the kernel."""
    bias = _bias(site)[columns]
    if _folds(site, padded):
        bias = bias + _folded(site, _gone(site, rows))[columns]
    return _known(site, columns, bias)


def _known(site: Site, columns: Array, bias: Array) -> Array | Taken | None:
    """A bias as part of the layer's own, or as a new one; None where there is none."""
    if "bias" in site.weights:
        return site.taken("bias").along(0, columns).holding(bias)
    return bias if bias.any() else None


def _values(bias: Array | Taken | None, width: int) -> Array:
    if bias is None:
        return np.zeros(width)
    return bias.values if isinstance(bias, Taken) else bias


def _gone(site: Site, rows: Array) -> Array:
    """Whether an input channel is a constant other than zero that goes."""
    inputs = site.inputs[0]
    return inputs.offset & ~np.isin(np.arange(len(inputs)), rows)


def _of_groups(site: Site, rows: Sequence[Array], columns: Array, kernel: Array) -> Taken:
    """A kernel of groups; its entries have no common rows where groups have kept different ones."""
    if any(not np.array_equal(rows[0], other) for other in rows):
        return weight_provenance.new(kernel)
    return site.taken("kernel").along(-1, columns).along(-2, rows[0]).holding(kernel)


def _groups(site: Site, rows: Array, columns: Array) -> Iterator[tuple[Site, Array, Array]]:
    """The groups that have an output left, each as a layer of its own."""
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
    """Which input channels a layer reads for the output channels that stay.

    Args:
        site: The call of the layer.
        order: The input channels that are there.
        columns: The output channels that stay.

    Returns:
        All of ``order``, if the layer has no groups; else those of the groups of ``columns``, the
        groups in order.
    """
    groups = groups_of(site)
    if groups == 1:
        return order
    of_rows = order // (len(site.inputs[0]) // groups)
    rows = order[np.isin(of_rows, columns // (len(_bias(site)) // groups))]
    return np.sort(rows)


def _folds(site: Site, padded: bool) -> bool:
    return site.constants != "exact" or not (padded or site.inputs[0].border)


def _folded(site: Site, which: Array) -> Array:
    """What the constant channels ``which`` add to every output, (outputs,)."""
    if site.constants == "drop":
        return np.zeros(site.weights["kernel"].shape[-1])
    values = np.where(which, site.inputs[0].value, 0.0)
    used = which.reshape(groups_of(site), -1).any(axis=0)
    sums = _blocks(site)[:, used].sum(axis=0, dtype=np.float64)
    return np.einsum("ngo,ng->go", sums, _column(site, values)[used, :, 0]).ravel()


def groups_of(site: Site) -> int:
    """Number of groups of inputs, of which every kernel reads one."""
    return len(site.inputs[0]) // int(site.weights["kernel"].shape[-2])


def _blocks(site: Site) -> Array:
    """The kernel as (positions, inputs of a group, groups, outputs of a group)."""
    kernel, groups = site.weights["kernel"], groups_of(site)
    *_, inputs, outputs = kernel.shape
    return kernel.reshape(-1, inputs, groups, outputs // groups)


def _column(site: Site, values: Array) -> Array:
    """Values of the inputs as (inputs of a group, groups, 1)."""
    return values.reshape(groups_of(site), -1).T[:, :, None]


def _bias(site: Site) -> Array:
    width = site.weights["kernel"].shape[-1]
    return np.asarray(site.weights.get("bias", np.zeros(width)), np.float64)


def activated(site: Site, values: Array) -> Array:
    """What the layer's activation function makes of values (channels,)."""
    tensor = keras.ops.convert_to_tensor(values, dtype="float64")
    return np.asarray(keras.ops.convert_to_numpy(site.operation.activation(tensor)), np.float64)


def positions(site: Site) -> int:
    """Positions of the output map; 1 stands for a size that is not known."""
    return math.prod(size or 1 for size in site.output_shape[1:-1])
