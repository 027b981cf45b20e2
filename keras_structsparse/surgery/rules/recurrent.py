"""Recurrent layers: they read their input linearly; their units mix and are all kept.

Every step adds the bias of the input, so removed constants move into it. Without a bias, nonzero
constants count as live.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels import weight_provenance
from keras_structsparse.graph.channels.registry import register
from keras_structsparse.graph.channels.rule import (
    Flow,
    LinearRead,
    Piece,
    Rule,
    Site,
    emit,
    only,
    unknown,
)
from keras_structsparse.graph.channels.weight_provenance import Taken
from keras_structsparse.graph.cloning import clone

KERNEL, BIAS = "kernel", "bias"
KNOWN = {KERNEL, "recurrent_kernel", BIAS}


def flow(site: Site) -> Flow:
    """All units are kept; of the inputs, the live ones whose row of a kernel is not zero."""
    (inputs,) = site.inputs
    kernels = [_values(w) for w in site.operation.weights if w.name == KERNEL]
    read = np.any([(kernel != 0).any(axis=-1) for kernel in kernels], axis=0)
    needed = read & (inputs.live if _has_bias(site) else inputs.live | inputs.offset)
    output = unknown(site.fresh(site.output_shape[-1] or 1))
    return Flow(
        output,
        keeps=(output.ids,),
        needs=lambda wanted: (inputs.ids[needed],),
        reads=(LinearRead(inputs, output.ids),),
        notes=("its states mix channels: all its units are kept",),
    )


def build(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """The layer over the kept inputs; constants of the others are in its biases."""
    piece, operation = only(pieces), site.operation
    inputs = site.inputs[0]
    removed = inputs.offset & ~np.isin(np.arange(len(inputs)), piece.order)
    if site.constants == "drop":
        removed = np.zeros_like(removed)
    weights: list[Taken] = []
    added: Array = np.zeros(())
    for number, weight in enumerate(operation.weights):
        taken = weight_provenance.whole(_values(weight), operation, number)
        if weight.name == KERNEL:  # Its bias comes behind it.
            rows = taken.values[removed].astype(np.float64)
            added = np.einsum("i,io->o", inputs.value[removed], rows)
            taken = taken.along(0, piece.order)
        elif weight.name == BIAS and added.any():
            taken = taken.holding(_with_input_bias(taken.values, added))
        weights.append(taken)
    layer = clone(operation, name=site.layer_name)
    return Piece(emit(layer, piece.tensor, weights, site.fill([piece.tensor])), wanted)


def _with_input_bias(bias: Array, added: Array) -> Array:
    """The bias with something added at the input: a GRU with ``reset_after`` has two rows."""
    values = np.array(bias, np.float64)
    values[(0,) * (values.ndim - 1)] += added
    return values


def _has_bias(site: Site) -> bool:
    return any(weight.name == BIAS for weight in site.operation.weights)


def _values(weight: keras.Variable) -> Array:
    return keras.ops.convert_to_numpy(weight)


def refuses(site: Site) -> str | None:
    """Refuse initial states, stateful layers, and weights that the rule does not know."""
    cells = [getattr(site.operation, n, None) for n in ("forward_layer", "backward_layer")]
    found = [cell for cell in cells if cell is not None] or [site.operation]
    if any(type(cell) not in CELLS for cell in found):
        return "its states mix channels"
    if len(site.inputs) != 1:
        return "it is called with initial states"
    if any(cell.stateful for cell in found):
        return "it is stateful"
    extra = {weight.name for weight in site.operation.weights} - KNOWN
    return f"it has weights that the rule does not know: {sorted(extra)}" if extra else None


CELLS = (layers.SimpleRNN, layers.LSTM, layers.GRU)

register(Rule(flow, build, refuses), *CELLS, layers.Bidirectional)
