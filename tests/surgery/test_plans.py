"""Plans: thresholds, effective norms, JSON, bad input; masked models."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import (
    assert_same_function,
    chain,
    difference,
    outputs,
    random_batch,
    random_plan,
    randomize,
    residual_network,
    use_float64,
)
from hypothesis import given
from hypothesis import strategies as st
from keras import layers as L

import keras_structsparse as kss
from keras_structsparse.errors import ModelError, PlanError
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.graph.nested_groups import support
from keras_structsparse.graph.prunable_layers import kernel_layers
from keras_structsparse.surgery.plans import FORMAT, Plan, masked, plan

Array = Any


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


def naive_size(kernel: Array, tau: float, step: int) -> int:
    """The smallest size outside which the kernel is below tau, by cutting it down step by step."""
    base = max(kernel.shape[:-1], default=1)
    for size in range(base, 0, -step):
        outside = np.array(kernel)
        outside[support(kernel.shape[:-1], size - step if size > step else 0)] = 0.0
        if np.sqrt(np.sum(outside**2)) > tau:
            return size
    return 0


def decaying(shape: tuple[int, ...], seed: int) -> Array:
    """A kernel with entries of very different sizes and some kernels of zeros."""
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=shape) * 10.0 ** rng.uniform(-4, 1, shape)
    return kernel * (rng.random(shape[-1]) < 0.8)


@pytest.mark.parametrize("tau", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("groups", "step"), [("half_ring", 1), ("ring", 2)])
@pytest.mark.parametrize("size", [5, 4, (3, 5), (1, 7), 1])
def test_thresholds_follow_the_definition(
    size: int | tuple[int, int], groups: str, step: int, tau: float
) -> None:
    model = chain(L.Conv2D(20, size, padding="same", name="conv"))
    kernel = decaying(tuple(model.get_layer("conv").kernel.shape), seed=step)
    model.get_layer("conv").kernel.assign(kernel)
    expected = [naive_size(kernel[..., j], tau, step) for j in range(20)]
    assert list(plan(model, tau, groups).sizes["conv"]) == expected
    assert len(set(expected)) > 1


def test_dense_layers_and_other_ranks_have_sizes_too() -> None:
    model = chain(L.Conv1D(2, 5, name="conv"), L.Dense(3, name="dense"), shape=(9, 2))
    model.get_layer("conv").kernel.assign(np.zeros((5, 2, 2)))
    model.get_layer("dense").kernel.assign([[2.0, 0.0, 0.1], [2.0, 0.0, 0.1]])
    assert plan(model, 0.5).sizes == {"conv": (0, 0), "dense": (1, 0, 0)}


@pytest.mark.parametrize("between", [(), (L.ZeroPadding2D,)])
def test_tau_acts_on_effective_kernels(between: tuple[type[keras.Layer], ...]) -> None:
    padding = [kind(1) for kind in between]
    model = chain(L.Conv2D(4, 3, name="conv"), *padding, L.BatchNormalization(name="norm"))
    kernel = np.zeros((3, 3, 2, 4))
    kernel[1, 1] = 1e-6  # scales do not matter
    kernel[0, 0, :, 1] = 1e-6
    kernel[:, :, :, 2] = 1e6
    model.get_layer("conv").kernel.assign(kernel)
    model.get_layer("norm").gamma.assign([0.5, -0.5, 0.001, 0.01])
    assert plan(model, 0.1).sizes["conv"] == (1, 3, 0, 0)
    assert plan(model, 0.4).sizes["conv"] == (1, 1 if 0.5 / math.sqrt(2) < 0.4 else 3, 0, 0)
    assert plan(model, 0.0).sizes["conv"] == (1, 3, 3, 1)


def test_a_normalisation_without_scale_leaves_norms_as_they_are() -> None:
    model = chain(L.Conv2D(2, 1, name="conv"), L.BatchNormalization(scale=False))
    model.get_layer("conv").kernel.assign([[[[1.0, 0.01], [1.0, 0.01]]]])
    assert plan(model, 0.1).sizes["conv"] == (1, 0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_every_precision_has_a_plan(dtype: str) -> None:
    model = keras.Sequential([keras.Input((5, 5, 1)), L.Conv2D(2, 3, name="conv", dtype=dtype)])
    kernel = np.zeros((3, 3, 1, 2))
    kernel[1, 1, 0, 0] = 1.0
    model.get_layer("conv").kernel.assign(kernel)
    assert plan(model).sizes["conv"] == (1, 0)


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8), st.lists(st.integers(0, 9), max_size=6), max_size=4
    )
)
def test_json_round_trip(sizes: dict[str, list[int]]) -> None:
    original = Plan(sizes)
    assert Plan.from_json(original.to_json()) == original
    assert Plan({**sizes, "more": [1]}) != original


def test_a_plan_by_hand_takes_any_whole_numbers() -> None:
    sizes: Any = {"conv": np.array([5, 0, 3]), "branch": [0.0, 0.0]}
    made = Plan(sizes)
    assert made.sizes == {"conv": (5, 0, 3), "branch": (0, 0)}
    assert made.widths == {"conv": 2, "branch": 0}
    assert made.removed_layers == ("branch",)


@pytest.mark.parametrize(
    "sizes",
    [
        [-1],
        [1.5],
        ["a"],
        [math.nan],
        [math.inf],
        [None],
        [[1]],
        7,
        None,
        "55",
        {"a": 1},
    ],
    ids=repr,
)
def test_sizes_that_are_no_whole_numbers_are_refused_by_name(sizes: Any) -> None:
    with pytest.raises(PlanError, match="layer 'conv': expected one whole number") as error:
        Plan({"conv": sizes})
    assert repr(sizes) in str(error.value)


@pytest.mark.parametrize("sizes", [None, [1], "conv", 3])
def test_sizes_that_are_no_mapping_are_refused(sizes: Any) -> None:
    with pytest.raises(PlanError, match="expected a mapping"):
        Plan(sizes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected JSON"),
        ("{", "expected JSON"),
        ("[]", "list"),
        ("null", "NoneType"),
        ("{}", "None"),
        ('{"format": "other/1", "sizes": {}}', "other/1"),
        (json.dumps({"format": FORMAT, "sizes": [1]}), "mapping"),
        (json.dumps({"format": FORMAT}), "sizes"),
        (json.dumps({"format": FORMAT, "sizes": {"conv": [-1]}}), "conv"),
        (json.dumps({"format": FORMAT, "sizes": {"conv": [math.inf]}}), "conv"),
        (json.dumps({"format": FORMAT, "sizes": {"conv": "33"}}), "conv"),
    ],
)
def test_foreign_json_is_refused(text: str, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        Plan.from_json(text)


def test_json_that_is_no_text_is_refused() -> None:
    with pytest.raises(PlanError, match="JSON"):
        Plan.from_json(b"\xff\xfe\x00")  # type: ignore[arg-type]


@pytest.mark.parametrize("tau", [-1e-9, math.nan, math.inf, "1", None])
def test_a_bad_tau_is_refused(tau: Any) -> None:
    with pytest.raises(ValueError, match="tau: expected a finite number >= 0") as error:
        plan(chain(L.Conv2D(2, 3)), tau)
    assert repr(tau) in str(error.value)


def test_unknown_groups_are_refused() -> None:
    with pytest.raises(ValueError, match=r"groups.*square"):
        plan(chain(L.Conv2D(2, 3)), groups="square")


@pytest.mark.parametrize("stack", [(L.Dense(2),), (L.Conv2D(2, 3, groups=2),), (L.ReLU(),)])
def test_a_model_without_convolutions_is_refused(stack: tuple[keras.Layer, ...]) -> None:
    with pytest.raises(ModelError, match="no convolutions"):
        plan(chain(*stack))


@pytest.mark.parametrize(("layer", "weight"), [("conv", "kernel"), ("norm", "gamma")])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_by_name(
    layer: str, weight: str, value: float
) -> None:
    model = chain(L.Conv2D(2, 3, name="conv"), L.BatchNormalization(name="norm"))
    variable = getattr(model.get_layer(layer), weight)
    variable.assign(np.full(variable.shape, value))
    with pytest.raises(ModelError, match=f"Layer '{layer}': expected finite.*{weight}"):
        plan(model)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"other": [3, 3]}, "layer 'other'.*another model"),
        ({"first_con": [3, 3]}, "Did you mean: first_conv"),
        ({"norm": [1, 1]}, "layer 'norm'"),
        ({"first_conv": [3]}, "'first_conv' has 2 kernels. Received 1"),
        ({"first_conv": [3, 3, 3]}, "'first_conv' has 2 kernels. Received 3"),
        ({"first_conv": []}, "'first_conv' has 2 kernels. Received 0"),
        ({"first_conv": [3, 4]}, "'first_conv' has kernels of size 3. Received size 4"),
    ],
)
def test_a_plan_for_another_model_is_refused(sizes: dict[str, list[int]], words: str) -> None:
    model = chain(L.Conv2D(2, 3, name="first_conv"), L.BatchNormalization(name="norm"))
    with pytest.raises(PlanError, match=words):
        masked(model, Plan(sizes))


def planted(normalize: bool) -> keras.Model:
    """A network with dead gammas and with kernels of zeros whose gammas are not zero."""
    model = residual_network(normalize, seed=3)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.gamma.assign(np.where(np.arange(layer.gamma.shape[0]) % 3 == 0, 0, layer.gamma))
        if isinstance(layer, L.Conv2D):
            layer.kernel.assign(layer.kernel * (np.arange(layer.filters) % 4 != 1))
    return model


@pytest.mark.parametrize("normalize", [True, False])
def test_tau_zero_changes_nothing(normalize: bool) -> None:
    model = planted(normalize)
    chosen, inputs = plan(model, 0.0), random_batch(model)
    assert min(chosen.widths.values()) < 6
    for before, after in zip(
        outputs(model, inputs), outputs(masked(model, chosen), inputs), strict=True
    ):
        np.testing.assert_array_equal(before, after)
    assert difference(model, masked(model, plan(model, 4.0)), inputs) > 1e-3


def test_masking_zeroes_what_is_outside_the_plan_and_nothing_else() -> None:
    model = residual_network(seed=1)
    chosen = random_plan(model, seed=1)
    twin = masked(model, chosen)
    copies = kernel_layers(functional_graph.read(twin))
    for name, layer in kernel_layers(functional_graph.read(model)).items():
        kernel, found = layer.get_weights()[0], copies[name].get_weights()[0]
        for j, size in enumerate(chosen.sizes.get(name, ())):
            expected = np.zeros_like(kernel[..., j])
            inside = support(kernel.shape[:-2], size)
            expected[inside] = kernel[(*inside, slice(None), j)] if size else 0.0
            np.testing.assert_array_equal(found[..., j], expected)


def test_a_removed_kernel_leaves_the_offset_of_its_normalisation() -> None:
    model = chain(L.Conv2D(2, 3, name="conv"), L.BatchNormalization(name="norm"))
    (found,) = outputs(masked(model, Plan({"conv": (0, 3)})), random_batch(model))
    np.testing.assert_allclose(
        found[..., 0], model.get_layer("norm").get_weights()[1][0], rtol=1e-12
    )
    assert found[..., 1].std() > 0.1


def test_masking_does_not_change_the_model() -> None:
    model, inputs = residual_network(seed=2), None
    inputs = random_batch(model)
    before = outputs(model, inputs)
    twin = masked(model, random_plan(model, seed=2))
    randomize(twin, seed=9)
    np.testing.assert_array_equal(before, outputs(model, inputs))
    assert difference(model, twin, inputs) > 1e-3


def test_an_empty_plan_masks_nothing() -> None:
    model = residual_network()
    inputs = random_batch(model)
    assert_same_function(model, masked(model, Plan({})), inputs, tolerance=0.0)
    assert difference(model, masked(model, Plan({"stem": [0] * 8})), inputs) > 1e-3


@pytest.mark.parametrize("twice", [False, True])
def test_nested_layers_are_masked_under_their_long_names(twice: bool) -> None:
    block = chain(L.Conv2D(2, 3, padding="same", name="conv"), shape=(6, 6, 2))
    block = keras.Sequential([keras.Input((6, 6, 2)), *block.layers], name="block")
    inputs = keras.Input((6, 6, 2))
    model = keras.Model(inputs, block(block(inputs)) if twice else block(inputs))
    by_hand = copy_model(model)
    kernel = by_hand.get_layer("block").get_layer("conv").kernel
    kernel.assign(kernel * np.array([1.0, 0.0]))
    chosen, batch = Plan({"block/conv": [3, 0]}), random_batch(model)
    assert_same_function(by_hand, masked(model, chosen), batch)
    assert difference(model, by_hand, batch) > 1e-3


DATA = Path(__file__).parents[1] / "data_files"


def test_plans_and_costs_of_version_0_1_can_be_read() -> None:
    text = (DATA / "plan_of_version_0_1.json").read_text(encoding="utf-8")
    assert Plan.from_json(text) == Plan({"conv": (5, 3, 0, 3), "branch": (0, 0)})
    costs = (DATA / "costs_of_version_0_1.json").read_text(encoding="utf-8")
    assert kss.Costs.from_json(costs) == kss.Costs(move=20.0, start=3e5, block=16)
    with pytest.raises(kss.PlanError, match="format"):
        Plan.from_json(text.replace("plan/1", "plan/0"))


def test_dense_networks_are_planned() -> None:
    model = chain(L.Dense(4, name="a"), L.Dense(2, name="b"), shape=(3,))
    kernel = np.ones((3, 4), "float32")
    kernel[:, 1] = 0
    model.get_layer("a").kernel.assign(kernel)
    assert plan(model, tau=1e-3).sizes["a"] == (1, 0, 1, 1)
