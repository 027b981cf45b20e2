"""Give an untrained network statistics, offsets and a plan that surgery has to be exact about.

Right after construction a network has no biases and normalisations that do nothing, and many of
its outputs hardly depend on its input: a check on it proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.channels.channel_groups import ChannelMap
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.graph.kernel_axes import axes_of, base_size, other_entries, plain_shape
from keras_structsparse.graph.prunable_layers import kernel_layers
from keras_structsparse.profiling import multiply_adds
from keras_structsparse.surgery import verification
from keras_structsparse.surgery.plans import Plan

Array = Any

DEAD = 0.3
"""Share of kernels that are removed unless told otherwise; the sizes of the others are uniform."""

NOISE = 1e-10
"""What two samples differ by through rounding alone, relative to their size, is less."""


def animate(model: keras.Model, seed: int = 0) -> None:
    """Random kernels, biases, scales and offsets, then the statistics of a random batch."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if "float" in weight.dtype:
            weight.assign(_random(rng, weight.path.rsplit("/", 1)[-1], tuple(weight.shape)))
    _calibrate(model, seed)


def _random(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Array:
    values = rng.standard_normal(shape, "float32")
    if name in ("gamma", "moving_variance", "variance", "scale"):
        return 0.5 + np.abs(values) / 2
    if len(shape) < 2:
        return values / 2
    inputs = shape[:-2] if "depthwise" in name else shape[:-1]
    return values * math.sqrt(2 / math.prod(inputs))


def _calibrate(model: keras.Model, seed: int) -> None:
    """Run a batch in training mode with normalisations that forget what they knew."""
    norms = [x for x in model._flatten_layers() if type(x) is keras.layers.BatchNormalization]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    _run(model, verification.random_inputs(model, 16, seed + 1), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _run(model: keras.Model, inputs: Sequence[Array], **options: Any) -> Any:
    return model(
        keras.tree.pack_sequence_as(functional_graph.input_structure(model), inputs), **options
    )


def random_plan(model: keras.Model, seed: int = 0, dead: float = DEAD) -> Plan:
    """Random sizes for the kernels of all layers but those that make outputs."""
    network, rng = functional_graph.read(model), np.random.default_rng(seed)
    outputs = {call.name for call in network.calls if set(call.outputs) & set(network.outputs)}
    return Plan(
        {
            name: _sizes(rng, layer, dead)
            for name, layer in kernel_layers(network).items()
            if name not in outputs
        }
    )


def coupled(model: keras.Model, plan: Plan) -> Plan:
    """The same plan, but kernels that write the same channels live and die with the first of them.

    As training with ``coupled=True`` has it: residual streams get narrower.
    """
    sizes = {name: list(own) for name, own in plan.sizes.items()}
    found = ChannelMap.of(functional_graph.read(model))
    for run in found.joined(list(sizes)):
        for j in range(run.width):
            (leader, start), *rest = run.first
            for name, first in rest:
                own = sizes[name]
                own[first + j] = max(own[first + j], 1) if sizes[leader][start + j] else 0
    return Plan(sizes)


def _sizes(rng: np.random.Generator, layer: keras.Layer, dead: float) -> list[int]:
    base, width = base_size(layer), plain_shape(layer)[-1]
    least = 1 if axes_of(layer).sized else base
    sizes = rng.integers(least, base + 1, width) * (rng.random(width) >= dead)
    sizes[0] = max(sizes[0], least)
    return [int(size) for size in sizes]


# --- what is left by equation (10), without asking surgery ---


def planted(model: keras.Model, plan: Plan) -> float:
    """Multiply-adds (eq. 10) that a masked model needs: live inputs times the sizes of kernels."""
    network = functional_graph.read(model)
    live, shapes = liveness(network), dict(enumerate(network.shapes))
    total = 0.0
    for call in network.calls:
        if isinstance(call.operation, keras.Layer):
            whole = multiply_adds.multiply_adds(call.operation, call, shapes) or 0
            share = live[call.inputs[0]].mean() * _kept_area(call, plan) if whole else 0.0
            total += whole * share
    return total


def _kept_area(call: functional_graph.Call, plan: Plan) -> float:
    sizes = plan.sizes.get(call.name)
    if sizes is None:
        return 1.0
    *shape, channels, width = plain_shape(call.operation)
    areas = {n: math.prod(min(n, side) for side in shape) if n else 0 for n in set(sizes)}
    others = other_entries(call.operation)
    kept = others + channels * sum(areas[size] for size in sizes)
    return kept / (others + math.prod(shape) * channels * width)


def liveness(network: functional_graph.Graph) -> Mapping[int, Array]:
    """For every tensor, which of its channels depend on the input.

    Measured: every activation is replaced by one that is nowhere flat, and a channel is live if
    two inputs make it differ. So a ReLU that is closed for all inputs of a batch counts as live.
    What differs is made as large as what does not after every layer: else a signal that fades
    through many layers would count as dead.
    """
    smooth = functional_graph.read(verification.in_float64(copy_model(network.model, _never_flat)))
    inputs = verification.random_inputs(smooth.model, 2, seed=2)
    values = dict(zip(smooth.inputs, map(_evened, inputs), strict=True))
    for call in smooth.calls:
        args, kwargs = call.arguments([values[i] for i in call.inputs])
        outputs = keras.tree.flatten(call.operation(*args, **kwargs))
        values.update(zip(call.outputs, map(_evened, outputs), strict=True))
    return {tensor: _differing(np.asarray(value)) for tensor, value in values.items()}


def _evened(value: Array) -> Array:
    """Two samples with the same mean as before, and half their difference as large as that."""
    # What max pooling is padded with is not finite.
    finite = np.nan_to_num(keras.ops.convert_to_numpy(value), posinf=0.0, neginf=0.0)
    first, second = finite.astype(np.float64)[:2]
    mean, half = (first + second) / 2, (first - second) / 2
    size, scale = np.abs(half).max(), np.abs(mean).max()
    half = half * (scale / size) if size > NOISE * scale > 0 else 0 * half
    total = np.abs(mean).max() or 1.0
    return keras.ops.convert_to_tensor(np.stack([mean + half, mean - half]) / total)


def _differing(value: Array) -> Array:
    differs = np.abs(value[0] - value[1]) > NOISE * np.abs(value).max()
    return differs.reshape(-1, differs.shape[-1]).any(axis=0)


def _never_flat(layer: keras.Layer) -> Mapping[str, Any]:
    if type(layer) is keras.layers.ReLU:
        return {"negative_slope": 0.5, "max_value": None, "threshold": 0.0}
    return {"activation": "softsign"} if hasattr(layer, "activation") else {}


def constants(model: keras.Model) -> tuple[int, int]:
    """Channels of a pruned model that do not depend on the input.

    Returns:
        Those that convolutions and dense layers compute, but for the 1x1 convolutions that spread
        a narrow tensor: their constants are sums. And those that layers with a border read.
    """
    network = functional_graph.read(model)
    dead = {tensor: int((~live).sum()) for tensor, live in liveness(network).items()}
    layers = kernel_layers(network)
    calls = [call for call in network.calls if call.name in layers]
    made = {i for call in calls if "_spread_" not in call.name for i in call.outputs}
    read = {call.inputs[0] for call in calls if _has_border(call.operation)}
    return sum(dead[i] for i in made), sum(dead[i] for i in read)


def _has_border(layer: keras.Layer) -> bool:
    return max(getattr(layer, "kernel_size", (1,))) > 1 and layer.padding != "valid"
