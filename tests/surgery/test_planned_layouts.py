"""Plans for transposed and separable convolutions, dense layers before maps, recurrent readers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import assert_exact_surgery, chain, randomize, use_float64
from helpers_seeds import seeds
from keras import layers as L

import keras_structsparse as kss
from keras_structsparse.errors import PlanError
from keras_structsparse.graph.kernel_axes import plain_kernel, plain_shape

Rng = np.random.Generator


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


def transposed(rng: Rng) -> keras.Model:
    rank = int(rng.integers(1, 4))
    size, strides = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    options: dict[str, Any] = {
        "padding": str(rng.choice(["same", "valid"])),
        "use_bias": bool(rng.integers(2)),
        "activation": str(rng.choice(["relu", "tanh", "linear"])),
    }
    # Not dilated: TensorFlow does not run that on a CPU; nor some output paddings.
    if rank < 3 and size > strides > 1 and rng.integers(2):
        options["output_padding"] = int(rng.integers(strides))
    layer = getattr(L, f"Conv{rank}DTranspose")
    stack = [layer(6, size, strides, name="planned", **options)]
    if rng.integers(2) and options["activation"] == "linear":
        stack += [L.BatchNormalization(), L.Activation("swish")]
    reader = layer if rng.integers(2) else getattr(L, f"Conv{rank}D")
    stack.append(reader(3, 2, padding=str(rng.choice(["same", "valid"])), name="reader"))
    return chain(*stack, shape=(*(4, 3, 3)[:rank], 2))


def separable(rng: Rng) -> keras.Model:
    rank = int(rng.integers(1, 3))
    options: dict[str, Any] = {
        "strides": int(rng.integers(1, 3)),
        "padding": str(rng.choice(["same", "valid"])),
        "use_bias": bool(rng.integers(2)),
        "depth_multiplier": int(rng.integers(1, 3)),
    }
    layer = getattr(L, f"SeparableConv{rank}D")
    stack = [layer(6, 3, name="planned", **options)]
    stack += [L.BatchNormalization()] * bool(rng.integers(2)) + [L.Activation("sigmoid")]
    stack.append(layer(4, 2, padding=options["padding"], name="reader"))
    return chain(*stack, shape=(*(8, 7)[:rank], 3))


def half(model: keras.Model, rng: Rng) -> kss.Plan:
    """About half of the kernels of the planned layer."""
    layer = model.get_layer("planned")
    shape = plain_shape(layer)
    kept = rng.permutation(shape[-1]) < shape[-1] // 2
    return kss.Plan({"planned": (kept * max(shape[:-2], default=1)).tolist()})


@pytest.mark.parametrize("make", [transposed, separable])
@pytest.mark.parametrize("seed", seeds(6))
def test_whole_kernels_are_removed_exactly(make: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = make(rng)
    plan = half(model, rng)
    pruned = assert_exact_surgery(model, plan)
    width = plain_shape(pruned.get_layer("planned"))[-1]
    padded = make is separable and model.get_layer("reader").padding == "same"
    assert width in (3, 4) or padded  # with a carrier, or with all constants
    left = kss.Ancestry.between(model, pruned).layers["planned"]
    kept = np.flatnonzero(plan.sizes["planned"])
    assert left[0] == "planned"
    assert set(kept) <= set(left[1])


@pytest.mark.parametrize("make", [transposed, separable])
def test_a_plan_reads_norms_and_keeps_kernels_whole_or_not_at_all(make: Any) -> None:
    model = make(np.random.default_rng(1))
    layer = model.get_layer("planned")
    size = max(plain_shape(layer)[:-2])
    squares = np.square(plain_kernel(layer))
    strength = np.sqrt(squares.sum(axis=tuple(range(squares.ndim - 1))))
    tau = float(np.sort(strength)[2:4].mean())  # between two norms: rounding decides nothing
    if not any(isinstance(x, L.BatchNormalization) for x in model.layers):
        expected = tuple(int(size) if norm > tau else 0 for norm in strength)
        assert kss.plan(model, tau).sizes["planned"] == expected
    assert kss.plan(model, 0.0).sizes["planned"] == (size,) * 6
    assert kss.plan(model, 1e9).sizes["planned"] == (0,) * 6


def test_sizes_between_are_refused_where_kernels_cannot_be_cropped() -> None:
    model = chain(L.Conv2DTranspose(4, 3, name="up"), L.Conv2D(2, 1))
    with pytest.raises(PlanError, match=r"layer 'up' \(Conv2DTranspose\) .* Received size 2"):
        kss.prune(model, kss.Plan({"up": (3, 2, 0, 3)}))


def test_pointwise_kernels_are_trained_away() -> None:
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    model = chain(L.SeparableConv2D(6, 3, name="planned"), L.GlobalAveragePooling2D(), L.Dense(1))
    kernel = plain_kernel(model.get_layer("planned")).copy()
    kernel[..., :3] *= 1e-3
    model.get_layer("planned").pointwise_kernel.assign(kernel)
    kss.attach(model, kss.KernelSize(1.0))
    assert list(kss.regularizers_of(model)) == ["planned"]
    model.compile(kss.Proximal(keras.optimizers.SGD(0.05)), "mse")
    x = np.random.default_rng(0).normal(size=(8, 9, 9, 2))
    model.fit(x, np.zeros((8, 1)), epochs=2, verbose=0)
    assert kss.plan(model, 0.0).sizes["planned"] == (0, 0, 0, 1, 1, 1)
    again = keras.models.model_from_json(model.to_json())
    assert list(kss.regularizers_of(again)) == ["planned"]


# --- a dense layer before maps ---


def generator(activation: str, bias: bool) -> keras.Model:
    stack = [L.Dense(48, activation, use_bias=bias, name="planned"), L.Reshape((4, 2, 6))]
    stack += [L.Activation("tanh"), L.Conv2DTranspose(3, 3, padding="same", name="reader")]
    return chain(*stack, L.Conv2D(2, 1), shape=(5,))


def whole_maps(kept: Any) -> kss.Plan:
    return kss.Plan({"planned": [int(c % 6 in kept) for c in range(48)]})


@pytest.mark.parametrize(("activation", "bias"), [("tanh", False), ("relu", True)])
def test_whole_maps_and_their_columns_are_removed(activation: str, bias: bool) -> None:
    model = generator(activation, bias)
    if bias:
        model.get_layer("planned").bias.assign(-np.ones(48))
    pruned = assert_exact_surgery(model, whole_maps({0, 3, 5}))
    assert pruned.get_layer("planned").units == 24
    assert pruned.get_layer("reader").kernel.shape[-1] == 3


def test_maps_of_equal_constants_leave_one_carrier() -> None:
    model = generator("tanh", True)
    bias = keras.ops.convert_to_numpy(model.get_layer("planned").bias).reshape(8, 6)
    model.get_layer("planned").bias.assign(np.repeat(bias[:1], 8, axis=0).ravel())
    pruned = assert_exact_surgery(model, whole_maps({0, 3, 5}))
    assert pruned.get_layer("planned").units == 32


def test_maps_whose_constants_differ_between_positions_are_removed() -> None:
    model = generator("tanh", True)
    pruned = assert_exact_surgery(model, whole_maps({0, 3, 5}))
    assert pruned.get_layer("planned").units == 24
    assert not kss.compare(model, pruned).notes


def test_parts_of_a_map_are_kept() -> None:
    model = generator("tanh", False)
    plan = kss.Plan({"planned": [int(c != 7) for c in range(48)]})
    assert assert_exact_surgery(model, plan).get_layer("planned").units == 48


def test_maps_in_a_sum_keep_their_order() -> None:
    i = keras.Input((5,))
    maps = L.Reshape((3, 3, 6))(L.Dense(54, use_bias=False, name="d")(i))
    x = L.Conv2D(6, 3, padding="same", name="c")(maps)
    x = L.Add()([x, maps])
    model = randomize(keras.Model(i, L.Conv2D(2, 3, padding="same")(x)))
    sizes = [int(c % 6 != 1) for c in range(54)]
    plan = kss.Plan({"d": sizes, "c": (3, 0, 1, 3, 1, 2)})
    for realize in ("split", "crop", "auto"):
        assert_exact_surgery(model, plan, realize=realize)


# --- recurrent layers ---


def recurrent(rng: Rng) -> keras.Model:
    kind = [L.SimpleRNN, L.LSTM, L.GRU][int(rng.integers(3))]
    options: dict[str, Any] = {
        "return_sequences": bool(rng.integers(2)),
        "go_backwards": bool(rng.integers(2)),
        "use_bias": bool(rng.integers(2)),
        "unroll": bool(rng.integers(2)),
        "dropout": 0.2,
    }
    if kind is L.GRU:
        options["reset_after"] = bool(rng.integers(2))
    layer = kind(4, **options)
    if rng.integers(2):
        layer = L.Bidirectional(kind(4, **{**options, "go_backwards": False}))
    first = L.Conv1D(6, 3, activation=str(rng.choice(["sigmoid", "relu"])), name="planned")
    return chain(first, layer, L.Dense(2), shape=(8, 3))


@pytest.mark.parametrize("seed", seeds(10))
def test_recurrent_layers_read_fewer_channels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = recurrent(rng)
    pruned = assert_exact_surgery(model, half(model, rng))
    biased = any(w.name == "bias" for w in model.layers[1].weights)
    left = plain_shape(pruned.get_layer("planned"))[-1]
    assert left == 3 if biased else left <= 6
    assert pruned.layers[2].weights[0].shape[0] == left


@pytest.mark.parametrize("how", ["stateful", "states"])
def test_other_recurrent_calls_are_copied_with_a_note(how: str) -> None:
    i = keras.Input((8, 3), batch_size=5)
    x = L.Conv1D(6, 3, name="planned")(i)
    if how == "stateful":
        x = L.LSTM(4, stateful=True, name="r")(x)
    else:
        x = L.LSTM(4, name="r")(x, initial_state=[keras.ops.zeros_like(x[:, 0, :4])] * 2)
    model = randomize(keras.Model(i, L.Dense(2)(x)))
    plan = kss.Plan({"planned": (3, 0, 3, 0, 3, 0)})
    pruned = kss.prune(model, plan)
    assert pruned.get_layer("r").cell.kernel.shape[0] == 6
    words = {"stateful": "it is stateful", "states": "it is called with initial states"}[how]
    assert any(words in note for note in kss.compare(model, pruned).notes)
