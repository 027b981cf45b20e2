"""The invariant: a pruned network computes what the masked one computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import (
    Array,
    assert_exact_surgery,
    assert_same_function,
    chain,
    difference,
    kernel_shape,
    outputs,
    random_batch,
    random_plan,
    randomize,
    residual_network,
    types,
    use_float64,
)
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from keras import layers as L

from keras_structsparse import models
from keras_structsparse.errors import DeadNetworkError, ModelError, PlanError
from keras_structsparse.graph import embedded_text
from keras_structsparse.profiling.profile import profile
from keras_structsparse.regularizers import KernelSize
from keras_structsparse.regularizers.attachment import attach
from keras_structsparse.surgery import prune
from keras_structsparse.surgery.plans import Plan, masked, plan

Tensor = Any


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


# Shrinking rebuilds hundreds of networks and takes minutes; the failing case is small enough.
@settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    normalize=st.booleans(),
    strides=st.sampled_from([1, 2, 3, (2, 2)]),
    explicit_padding=st.booleans(),
    activation=st.sampled_from(["relu", "swish", "sigmoid"]),
    dead=st.sampled_from([(), ("b1b",), ("b3a",), ("b1b", "b3b"), ("branch",)]),
    realize=st.sampled_from(["auto", "crop", "split", "none"]),
    seed=st.integers(0, 10**6),
)
def test_pruned_equals_masked(
    normalize: bool,
    strides: int | tuple[int, int],
    explicit_padding: bool,
    activation: str,
    dead: tuple[str, ...],
    realize: str,
    seed: int,
) -> None:
    model = residual_network(normalize, strides, explicit_padding, activation, seed)
    assert_exact_surgery(model, random_plan(model, seed, dead), seed, realize=realize)


CONVOLUTIONS: list[tuple[int, Any, dict[str, Any]]] = [
    (2, 5, {"padding": "same"}),
    (2, 4, {"padding": "same"}),
    (2, 4, {"padding": "same", "strides": 2}),
    (2, 5, {"padding": "same", "strides": 3}),
    (2, 3, {"padding": "valid", "strides": 2}),
    (2, 5, {"padding": "valid", "dilation_rate": 2}),
    (2, 3, {"padding": "same", "dilation_rate": (3, 2)}),
    (2, (5, 3), {"padding": "same"}),
    (2, (1, 6), {"padding": "same", "strides": 2}),
    (2, (2, 4), {"padding": "valid", "strides": (2, 1)}),
    (2, 2, {"padding": "same", "strides": 3}),
    (1, 5, {"padding": "same", "strides": 2}),
    (1, 4, {"padding": "causal"}),
    (1, 4, {"padding": "causal", "dilation_rate": 2}),
    (1, 3, {"padding": "causal", "strides": 2}),
    (3, 3, {"padding": "same", "strides": 2}),
    (3, (3, 1, 3), {"padding": "same", "strides": 3}),
    (3, 2, {"padding": "valid"}),
]
KINDS: dict[int, type[keras.Layer]] = {1: L.Conv1D, 2: L.Conv2D, 3: L.Conv3D}
SIZES = {1: (17,), 2: (14, 13), 3: (7, 6, 5)}


def stack(rank: int, size: Any, options: dict[str, Any], shape: tuple[int | None, ...]) -> Any:
    """A convolution among others, with constants of all kinds around it."""
    conv = KINDS[rank]
    return chain(
        conv(6, 1, activation="swish", name="stem"),
        L.BatchNormalization(),
        conv(6, size, name="conv", **options),
        L.BatchNormalization(),
        L.Activation("softplus"),
        conv(5, 3, padding="same", name="next"),
        L.Dense(3, name="last"),
        shape=(*shape, 2),
    )


@pytest.mark.parametrize("seed", range(len(CONVOLUTIONS)))
def test_convolutions_of_every_kind(seed: int) -> None:
    rank, size, options = CONVOLUTIONS[seed]
    model, realize = stack(rank, size, options, SIZES[rank]), ("crop", "split")[seed % 2]
    assert_exact_surgery(model, random_plan(model, seed), seed, realize=realize)


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize(("size", "known"), [(5, None), (4, 13)])
def test_images_of_unknown_size(strides: int, size: int, known: int | None) -> None:
    options = {"padding": "same", "strides": strides}
    model = stack(2, size, options, (None, known))
    chosen = Plan({"stem": [1, 0, 1, 0, 1, 1], "conv": [3, 3, 0, 2, 1, 0]})
    pruned = prune(model, chosen)
    for unknown in (11, 12):
        inputs = random_batch(model, unknown=unknown)
        assert_same_function(masked(model, chosen), pruned, inputs)
        assert difference(model, pruned, inputs) > 1e-3
    assert kernel_shape(pruned, "conv")[0] == (3 if strides == 1 else size)


def residual(narrow: bool, width: int = 6, size: int = 3) -> keras.Model:
    inputs = keras.Input((9, 8, 2))
    x = L.Conv2D(width, size, padding="same", activation="sigmoid", name="trunk")(inputs)
    y = L.Conv2D(width, size, padding="same", name="branch")(x)
    y = L.BatchNormalization()(y)
    y = L.Activation("sigmoid")(y) if narrow else y
    x = L.Add(name="add")([x, y])
    return randomize(keras.Model(inputs, L.Conv2D(3, 3, padding="same", name="last")(x)))


@pytest.mark.parametrize("trunk", [[3, 0, 3, 0, 3, 0], [0, 0, 0, 0, 0, 1]])
@pytest.mark.parametrize("branch", [[3, 3, 3, 0, 0, 0], [0, 0, 2, 0, 0, 0], [1] * 6])
@pytest.mark.parametrize(("narrow", "realize"), [(True, "auto"), (False, "split")])
def test_narrow_sides_of_sums(
    trunk: list[int], branch: list[int], narrow: bool, realize: str
) -> None:
    chosen = Plan({"trunk": trunk, "branch": branch})
    assert_exact_surgery(residual(narrow), chosen, realize=realize)


@pytest.mark.parametrize(("size", "spread"), [(7, True), (1, False)])
def test_a_narrow_side_is_spread_where_that_costs_less(size: int, spread: bool) -> None:
    model = residual(True, width=24, size=size)
    pruned = assert_exact_surgery(model, Plan({"branch": [size, size] + [0] * 22}))
    assert any("spread" in layer.name for layer in pruned.layers) is spread
    assert kernel_shape(pruned, "branch")[-1] == (2 if spread else 24)


def test_sums_that_share_a_side_agree_on_its_order() -> None:
    """One sum spreads the side, another joins it and lets it be sorted by kernel size."""
    inputs = keras.Input((8, 8, 1))
    side = L.Conv2D(8, 2, padding="same", name="side")(inputs)
    small = L.Conv2D(8, 1, strides=2)(inputs)
    first = L.Add()([L.MaxPooling2D(2)(side), small])
    second = L.Add()([side, L.Conv2D(8, 1)(inputs)])
    outputs = [first, L.Conv2D(2, 3, padding="same")(second)]
    model = randomize(keras.Model(inputs, outputs))
    assert_exact_surgery(model, Plan({"side": [2, 1, 2, 1, 0, 0, 0, 0]}), realize="split")


@pytest.mark.parametrize("narrow", [True, False])
def test_a_dead_branch_goes_with_its_sum_and_its_constant_moves_on(
    narrow: bool, tmp_path: Path
) -> None:
    pruned = assert_exact_surgery(residual(narrow), Plan({"branch": [0] * 6}))
    assert L.Add not in types(pruned)
    assert "branch" not in [layer.name for layer in pruned.layers]
    pruned.save(tmp_path / "pruned.keras")
    inputs, loaded = random_batch(pruned), keras.models.load_model(tmp_path / "pruned.keras")
    assert_same_function(pruned, loaded, inputs)
    assert difference(pruned, prune(residual(narrow), Plan({})), inputs) > 1e-3


def test_a_dead_trunk_leaves_only_the_branch() -> None:
    inputs = keras.Input((9, 8, 2))
    x = L.Conv2D(4, 3, padding="same", name="left")(inputs)
    y = L.Conv2D(4, 3, padding="same", name="right")(inputs)
    model = randomize(keras.Model(inputs, L.Dense(2)(L.Add()([x, y]))))
    pruned = assert_exact_surgery(model, Plan({"left": [0] * 4, "right": [3, 1, 0, 3]}))
    assert L.Add not in types(pruned)
    assert kernel_shape(pruned, "right") == (3, 3, 2, 3)


def branches(inputs: Tensor) -> list[Tensor]:
    sizes = {"a": 5, "b": 3, "c": 1}
    return [
        L.Conv2D(4, size, padding="same", activation="elu", name=name)(inputs)
        for name, size in sizes.items()
    ]


@pytest.mark.parametrize("realize", ["auto", "split"])
@pytest.mark.parametrize("dead", [(), ("a",), ("a", "c")])
def test_concatenations(dead: tuple[str, ...], realize: str) -> None:
    inputs = keras.Input((9, 8, 2))
    a, b, c = branches(inputs)
    x = L.Concatenate()([a, b, a, c])
    x = L.Add()([x, L.Conv2D(16, 3, padding="same", name="d")(x)])
    x = L.Concatenate(axis=3)([L.BatchNormalization()(x), inputs])
    model = randomize(keras.Model(inputs, L.Conv2D(2, 3, padding="same", name="last")(x)))
    for seed in range(2):
        assert_exact_surgery(model, random_plan(model, seed, dead), seed, realize=realize)


def test_a_concatenation_with_one_input_left_goes() -> None:
    inputs = keras.Input((9, 8, 2))
    model = randomize(keras.Model(inputs, L.Dense(2)(L.Concatenate()(branches(inputs)))))
    pruned = assert_exact_surgery(model, Plan({"a": [0] * 4, "c": [0] * 4, "b": [3, 0, 2, 3]}))
    assert L.Concatenate not in types(pruned)


@pytest.mark.parametrize(
    "between",
    [L.Identity, lambda: L.MaxPooling2D(2), lambda: L.AveragePooling2D(3, 2, padding="same")],
)
def test_flattened_channels_leave_the_dense_layer(between: Callable[[], keras.Layer]) -> None:
    flat = (L.Flatten(name="flat"), L.Dropout(0.5), L.Dense(5, "tanh", name="hidden"))
    model = chain(L.Conv2D(6, 3, activation="sigmoid", name="conv"), between(), *flat, L.Dense(2))
    chosen = Plan({"conv": [3, 0, 1, 0, 0, 2], "hidden": [1, 0, 1, 1, 0]})
    pruned = assert_exact_surgery(model, chosen)
    before = model.get_layer("flat").output.shape[-1]
    assert kernel_shape(pruned, "hidden") == (before // 2, 3)


def test_of_two_outputs_one_may_be_dead() -> None:
    inputs = keras.Input((9, 8, 2), name="image")
    x = L.Conv2D(4, 3, name="conv")(inputs)
    dead = L.Conv2D(3, 3, name="dead", activation="sigmoid")(x)
    heads = {"dead": dead, "live": L.Dense(2)(L.GlobalAveragePooling2D()(x))}
    model = randomize(keras.Model({"image": inputs}, heads))
    chosen = Plan({"conv": [3, 0, 2, 0], "dead": [0, 0, 0]})
    pruned = assert_exact_surgery(model, chosen, realize="crop")
    assert set(pruned(random_batch(model))) == {"dead", "live"}
    assert kernel_shape(pruned, "dead") == (1, 1, 2, 3)


def test_an_input_may_become_unused(tmp_path: Path) -> None:
    left, right = keras.Input((9, 8, 2), name="left"), keras.Input((9, 8, 2), name="right")
    sides = [L.Conv2D(4, 3, name=f"conv_{x.name}")(x) for x in (left, right)]
    model = randomize(keras.Model([left, right], L.Dense(2)(L.Add()(sides))))
    pruned = assert_exact_surgery(model, Plan({"conv_left": [0] * 4}))
    pruned.save(tmp_path / "pruned.keras")
    inputs, loaded = random_batch(model), keras.models.load_model(tmp_path / "pruned.keras")
    assert_same_function(pruned, loaded, inputs)
    assert difference(model, loaded, inputs) > 1e-3


def test_shared_layers_without_weights_do_not_matter() -> None:
    inputs, relu = keras.Input((9, 8, 3)), L.ReLU(name="relu")
    x = relu(L.Conv2D(4, 3, name="first")(inputs))
    x = relu(L.Conv2D(4, 3, name="second")(x))
    model = randomize(keras.Model(inputs, L.Dense(2)(x)))
    pruned = assert_exact_surgery(model, Plan({"first": [3, 0, 0, 2], "second": [0, 0, 3, 1]}))
    assert kernel_shape(pruned, "second") == (3, 3, 2, 2)
    assert [x.name for x in pruned.layers if type(x) is L.ReLU] == ["relu", "relu_"]


def test_shared_layers_whose_constants_differ_stay_as_they_are_but_masked() -> None:
    inputs, conv = keras.Input((9, 8, 3)), L.Conv2D(3, 3, padding="same", name="shared")
    x = L.Conv2D(3, 3, padding="same", name="first", activation="sigmoid")(inputs)
    model = randomize(keras.Model(inputs, L.Dense(2)(conv(L.ReLU()(conv(x))))))
    pruned = assert_exact_surgery(model, Plan({"first": [3, 0, 0], "shared": [3, 0, 1]}))
    assert kernel_shape(pruned, "shared") == (3, 3, 3, 3)
    assert len(pruned.get_layer("shared")._inbound_nodes) == 2


def block(name: str, shape: tuple[int, ...], first: str = "conv") -> keras.Model:
    conv = L.Conv2D(shape[-1], 3, padding="same", name=first)
    return keras.Sequential([keras.Input(shape), conv, L.BatchNormalization(), L.ReLU()], name=name)


@pytest.mark.parametrize("twice", [False, True])
def test_nested_models_are_opened(twice: bool) -> None:
    inputs, inner = keras.Input((9, 8, 4)), block("inner", (9, 8, 4))
    outer = keras.Sequential([keras.Input((9, 8, 4)), inner], name="outer")
    x = outer(outer(inputs)) if twice else outer(inputs)
    model = randomize(keras.Model(inputs, L.Conv2D(2, 3, padding="same", name="last")(x)))
    pruned = assert_exact_surgery(model, Plan({"outer/inner/conv": [3, 0, 2, 0]}))
    read = kernel_shape(pruned, "last")[-2]
    assert kernel_shape(pruned, "outer_inner_conv") == (3, 3, 4, read)
    assert read == 4 or not twice


@pytest.mark.parametrize("nested_first", [True, False])
def test_names_of_opened_layers_do_not_collide(nested_first: bool) -> None:
    inputs, nested = keras.Input((9, 8, 4)), block("net", (9, 8, 4))
    plain_layer = L.Conv2D(4, 3, padding="same", name="net_conv")
    x = plain_layer(nested(inputs)) if nested_first else nested(plain_layer(inputs))
    model = randomize(keras.Model(inputs, L.Dense(2)(x)))
    assert_exact_surgery(model, Plan({"net/conv": [3, 0, 2, 0], "net_conv": [0, 3, 3, 1]}))


def test_names_of_parts_do_not_collide() -> None:
    model = chain(L.Conv2D(4, 3, name="conv"), L.Conv2D(2, 3, name="conv_part_0"))
    assert_exact_surgery(model, Plan({"conv": [3, 3, 1, 1]}), realize="split")


def test_no_regularizer_of_ours_and_no_difference_after_reloading(tmp_path: Path) -> None:
    model = attach(models.build("digits-residual"), KernelSize(1e-3))
    randomize(model)
    pruned = prune(model, random_plan(model, 0, dead=("conv5",)))
    assert len(model.losses) == 8
    assert pruned.losses == []
    assert "keras_structsparse" not in pruned.to_json()
    pruned.save(tmp_path / "pruned.keras")
    inputs, loaded = random_batch(model), keras.models.load_model(tmp_path / "pruned.keras")
    assert_same_function(pruned, loaded, inputs, tolerance=0.0)
    assert difference(model, loaded, inputs) > 1e-3


def test_wrapped_layers_lose_our_regularizer_too() -> None:
    conv = L.Conv2D(2, 3, kernel_regularizer=KernelSize(1.0))
    model = chain(L.TimeDistributed(conv), L.Conv3D(2, 1), shape=(2, 6, 6, 2))
    assert "keras_structsparse" in model.to_json()
    assert "keras_structsparse" not in prune(model, Plan({})).to_json()


def state(model: keras.Model) -> tuple[list[Array], list[int]]:
    nodes = [len(x._inbound_nodes) + len(x._outbound_nodes) for x in model.layers]
    return model.get_weights(), nodes


@pytest.mark.parametrize("realize", ["auto", "split"])
def test_surgery_does_not_change_its_model(realize: str) -> None:
    model = residual_network(seed=4)
    weights, nodes = state(model)
    pruned = prune(model, random_plan(model, 4), realize=realize)
    for weight in pruned.weights:
        weight.assign(weight * 0)
    np.testing.assert_equal(state(model), (weights, nodes))
    assert not np.array_equal(model.get_weights()[0], pruned.get_weights()[0])


def test_multiply_adds_fall_by_what_was_removed() -> None:
    model = chain(
        L.Conv2D(8, 5, padding="same", use_bias=False, name="a"),
        L.Conv2D(6, 3, padding="same", name="b"),
        L.Conv2D(4, 1, name="c"),
        shape=(10, 10, 2),
    )
    assert profile(model).multiply_adds == 100 * (2 * 8 * 25 + 8 * 6 * 9 + 6 * 4)
    chosen = Plan({"a": [3] * 5 + [0] * 3, "b": [1] * 4 + [0, 0]})
    pruned = assert_exact_surgery(model, chosen)
    assert profile(pruned).multiply_adds == 100 * (2 * 5 * 9 + 5 * 4 * 1 + 4 * 4)


@pytest.mark.parametrize("normalize", [True, False])
def test_tau_is_short_for_its_plan(normalize: bool) -> None:
    model = residual_network(normalize, seed=5)
    tau = 0.3 if normalize else 1.3
    chosen, inputs = plan(model, tau), random_batch(model)
    assert any(0 in sizes for sizes in chosen.sizes.values())
    pruned = prune(model, tau=tau)
    assert_same_function(masked(model, chosen), pruned, inputs)
    assert difference(model, pruned, inputs) > 1e-6


def test_zeros_of_the_model_itself_are_found() -> None:
    """Constants of every kind: zero kernels under live gammas, dead gammas."""
    model = residual_network()
    model = masked(model, random_plan(model, 0))
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.gamma.assign(layer.gamma * (np.arange(layer.gamma.shape[0]) % 5 != 4))
    pruned, inputs = prune(model, tau=0.0), random_batch(model)
    assert_same_function(model, pruned, inputs)
    assert pruned.count_params() < 0.9 * model.count_params()
    assert difference(model, prune(model, tau=0.2), inputs) > 1e-3


def test_float32_networks_are_exact_up_to_rounding() -> None:
    model = residual_network(seed=6, dtype="float32")
    chosen, inputs = random_plan(model, 6), random_batch(model).astype("float32")
    pruned = prune(model, chosen)
    assert {w.dtype for w in pruned.weights} == {"float32"}
    assert_same_function(masked(model, chosen), pruned, inputs, tolerance=1e-4)
    assert difference(model, pruned, inputs) > 1e-2


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
@pytest.mark.parametrize("realize", ["auto", "split"])
def test_layers_keep_their_precision(dtype: str, realize: str) -> None:
    keras.config.set_dtype_policy(dtype)
    model = residual(True)
    pruned = prune(
        model, Plan({"trunk": [3, 0, 1, 1, 2, 3], "branch": [0, 3] * 3}), realize=realize
    )
    # The policy of one layer is a map, which holds the record of surgery.
    policies = [embedded_text.plain_policy(layer.dtype_policy) for layer in pruned.layers[1:]]
    assert {policy.name for policy in policies} == {dtype}
    assert {layer.compute_dtype for layer in pruned.layers[1:]} == {
        keras.dtype_policies.get(dtype).compute_dtype
    }


def plain(*ends: keras.Layer) -> keras.Model:
    layers: list[keras.Layer] = []
    for index in range(4):
        layers += [L.Conv2D(3, 3, padding="same", name=f"conv{index}"), L.BatchNormalization()]
    return chain(*layers, *ends)


def pooled_head(activation: str | None = None) -> list[keras.Layer]:
    return [L.GlobalAveragePooling2D(), L.Dense(2, activation=activation)]


ENDS: dict[str, Callable[[], list[keras.Layer]]] = {
    "map": list,
    "dense": pooled_head,
    "softmax": lambda: pooled_head("softmax"),
    "softmax layer": lambda: [*pooled_head(), L.Softmax()],
    "layer norm": lambda: [L.LayerNormalization(), L.Dense(2)],
    "lambda": lambda: [L.Lambda(lambda x: x), L.Dense(2)],
}


@pytest.mark.parametrize("dead", ["conv0", "conv3"])
@pytest.mark.parametrize("ends", ENDS)
def test_a_dead_network_is_refused_by_the_name_of_its_first_dead_layer(
    dead: str, ends: str
) -> None:
    with pytest.raises(DeadNetworkError, match=f"all constant is '{dead}'"):
        prune(plain(*ENDS[ends]()), Plan({dead: [0] * 3, "conv3": [0] * 3}))


@pytest.mark.parametrize("constants", ["interior", "drop"])
@pytest.mark.parametrize("ends", ["dense", "softmax"])
def test_a_dead_network_is_refused_in_every_mode(constants: str, ends: str) -> None:
    with pytest.raises(DeadNetworkError, match="'conv1'"):
        prune(plain(*ENDS[ends]()), Plan({"conv1": [0] * 3}), constants)


def test_a_network_is_dead_behind_the_part_that_is_constant() -> None:
    inputs = keras.Input((4, 4, 2))
    _, rest = keras.ops.split(L.Conv2D(4, 2, name="conv")(inputs), [1], axis=-1)
    model = randomize(keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(rest))))
    prune(model, Plan({"conv": [1, 1, 0, 0]}))
    with pytest.raises(DeadNetworkError, match="all constant is 'split"):
        prune(model, Plan({"conv": [1, 0, 0, 0]}))


@pytest.mark.parametrize("name", ["digits-plain", "fashion-mnist-plain"])
def test_a_dead_network_of_the_zoo_is_refused(name: str) -> None:
    model = models.build(name)
    with pytest.raises(DeadNetworkError, match="conv3"):
        prune(model, Plan({"conv3": [0] * 16}))
    prune(model, Plan({"conv3": [0] * 15 + [1]}))


def test_a_residual_network_is_cut_at_its_transition() -> None:
    model = randomize(models.build("digits-residual"))
    branches = {"conv3": [0] * 16, "conv5": [0] * 16}
    prune(model, Plan(branches))
    with pytest.raises(DeadNetworkError, match=r"'(conv5|shortcut4)'"):
        prune(model, Plan({**branches, "shortcut4": [0] * 16}))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, ValueError, "expected plan or tau"),
        ({"plan": Plan({}), "tau": 0.1}, ValueError, "expected plan or tau"),
        ({"plan": {"conv": [3, 3]}}, TypeError, "keras_structsparse.Plan"),
        ({"plan": Plan({}), "constants": "fold"}, ValueError, "constants: .*'fold'"),
        ({"plan": Plan({}), "realize": "fast"}, ValueError, "realize: .*'fast'"),
        ({"plan": Plan({"other": [1]})}, PlanError, "'other'"),
        ({"plan": Plan({"conv": [1]})}, PlanError, "'conv' has 2 kernels"),
        ({"tau": -1.0}, ValueError, "tau: .*-1.0"),
        ({"tau": float("nan")}, ValueError, "tau: .*nan"),
    ],
)
def test_bad_arguments_are_refused(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        prune(chain(L.Conv2D(2, 3, name="conv")), **options)


@pytest.mark.parametrize("make", [lambda: keras.Sequential([L.Dense(2)]), lambda: "model.keras"])
def test_what_is_no_built_model_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ModelError):
        prune(make(), Plan({}))


def test_names_and_structures_stay() -> None:
    model = residual_network(seed=7)
    pruned = prune(model, random_plan(model, 7))
    assert pruned.name == model.name
    assert {"stem", "b1a", "classes"} <= {layer.name for layer in pruned.layers}
    assert outputs(pruned, random_batch(model, samples=3))[0].shape == (3, 4)


def test_a_branch_without_any_live_channel_goes_with_its_add() -> None:
    """Also where its last convolution reads constants only, and so costs nothing to keep."""
    model = residual_network(seed=3)
    chosen = Plan({"b3a": [0] * 12, "b3b": [0] * 12})
    pruned = assert_exact_surgery(model, chosen)
    left = {layer.name for layer in pruned.layers}
    assert {"b2a", "stem"} <= left
    assert not {"b3a", "b3b"} & left
