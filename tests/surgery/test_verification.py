"""The check itself: it passes what is right, fails what is wrong, and says when it cannot tell."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import chain, random_plan, randomize, residual_network
from keras import layers as L

from keras_structsparse.errors import DeadNetworkError, PlanError
from keras_structsparse.graph.batch_norm_folding import folded
from keras_structsparse.regularizers import KernelSize
from keras_structsparse.regularizers.attachment import attach
from keras_structsparse.surgery import prune
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.surgery.verification import Verification, random_inputs, verify

# In the package, the name stands for the function.
module = importlib.import_module("keras_structsparse.surgery.verification")

Wrong = Callable[..., keras.Model]

PLAN = Plan({"first": [3, 0, 1, 3], "second": [0, 3, 3]})


def network() -> keras.Model:
    return chain(
        L.Conv2D(4, 3, activation="sigmoid", name="first"),
        L.Conv2D(3, 3, padding="same", name="second"),
        L.BatchNormalization(),
        L.Dense(2),
    )


def test_right_surgery_passes_in_float32_and_leaves_the_model() -> None:
    model = residual_network(dtype="float32")
    before = model.get_weights()
    result = verify(model, random_plan(model, 0))
    assert result.passed
    assert result.error <= 1e-10
    assert result.control > 1e-6
    assert ": equal (" in str(result)
    np.testing.assert_equal(model.get_weights(), before)


def test_the_check_is_made_in_float64() -> None:
    double = module.in_float64(network())
    assert {w.dtype for w in double.weights} == {"float64"}
    assert double(np.zeros((1, 9, 9, 2))).dtype == "float64"


def forgets_a_plan(model: keras.Model, plan: Plan, constants: str, **options: Any) -> keras.Model:
    return prune(model, Plan({**plan.sizes, "second": [3, 3, 3]}))


def drops_constants(model: keras.Model, plan: Plan, constants: str, **options: Any) -> keras.Model:
    return prune(model, plan, "drop")


def nudges_a_weight(model: keras.Model, plan: Plan, constants: str, **options: Any) -> keras.Model:
    pruned = prune(model, plan)
    pruned.weights[0].assign(pruned.weights[0] * (1 + 1e-8))
    return pruned


def makes_nan(model: keras.Model, plan: Plan, constants: str, **options: Any) -> keras.Model:
    pruned = prune(model, plan)
    pruned.weights[0].assign(pruned.weights[0] * np.nan)
    return pruned


@pytest.mark.parametrize("wrong", [forgets_a_plan, drops_constants, nudges_a_weight, makes_nan])
def test_wrong_surgery_fails(wrong: Wrong, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    assert verify(model, PLAN).passed
    monkeypatch.setattr(module, "prune", wrong)
    result = verify(model, PLAN)
    assert not result.passed
    assert result.error > 1e-10
    assert "NOT equal" in str(result)


def saturated(*last: keras.Layer) -> keras.Model:
    """As a trained network on random inputs: outputs of 0 and 1."""
    model = chain(
        L.Conv2D(4, 3, activation="relu", name="first"),
        L.Conv2D(3, 3, padding="same", name="second"),
        L.GlobalAveragePooling2D(),
        *last,
    )
    for weight in model.layers[-1].weights or model.layers[-2].weights:
        weight.assign(weight * 1e4)
    return model


def is_two_percent_off(model: keras.Model, plan: Plan, *args: Any, **options: Any) -> keras.Model:
    pruned = prune(model, plan)
    kernel = pruned.get_layer("second").kernel
    kernel.assign(kernel * 1.02)
    return pruned


HEADS: list[tuple[Callable[[], keras.Layer], ...]] = [
    (lambda: L.Dense(3, activation="softmax"),),
    (lambda: L.Dense(3, activation="sigmoid"),),
    (lambda: L.Dense(3, activation="tanh"),),
    (lambda: L.Dense(3), L.Softmax),
    (lambda: L.Dense(3), lambda: L.Activation("sigmoid")),
]


@pytest.mark.parametrize("head", HEADS)
def test_a_saturated_activation_hides_nothing(head: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saturated(*[layer() for layer in head])
    right = verify(model, PLAN)
    assert right.passed, str(right)
    monkeypatch.setattr(module, "prune", is_two_percent_off)
    wrong = verify(model, PLAN)
    assert not wrong.passed
    assert wrong.error > 5e-3
    # The control: the outputs alone hide it.
    monkeypatch.setattr(module, "_fronts", lambda *models: [])
    assert verify(model, PLAN).error <= 1e-10


def test_a_head_whose_dead_outputs_are_put_back_is_compared_at_its_end() -> None:
    model = chain(L.Conv2D(4, 3, name="first"), L.Dense(3, activation="sigmoid", name="head"))
    result = verify(model, Plan({"first": [3, 0, 1, 3], "head": [1, 0, 1]}))
    assert result.passed, str(result)


@pytest.mark.parametrize("constants", ["interior", "drop"])
def test_the_inexact_modes_fail(constants: str) -> None:
    result = verify(network(), PLAN, constants)
    assert not result.passed
    assert result.error > 1e-3


def test_a_check_that_can_see_nothing_does_not_pass() -> None:
    model = network()
    head = model.layers[-1]
    head.kernel.assign(head.kernel * 0.0 + 1e-20)
    head.bias.assign([1.0, 1.0])
    result = verify(model, PLAN)
    assert result.error <= 1e-10
    assert not result.passed
    assert "undecided" in str(result)


@pytest.mark.parametrize(
    ("error", "control", "passed"),
    [
        (0.0, 1.0, True),
        (1e-10, 1e-6, True),
        (1.1e-10, 1.0, False),
        (0.0, 1e-7, False),
        (float("inf"), 1.0, False),
        (float("nan"), 1.0, False),
    ],
)
def test_the_verdict(error: float, control: float, passed: bool) -> None:
    assert Verification(error, control).passed is passed


def nested() -> keras.Model:
    conv = L.Conv2D(4, 3, activation="sigmoid", name="conv")
    inner = keras.Sequential([keras.Input((9, 9, 2)), conv], name="inner")
    inputs = keras.Input((9, 9, 2))
    x = L.Conv2D(3, 3, padding="same")(inner(inputs))
    return randomize(keras.Model(inputs, L.Dense(2, activation="tanh")(x)))


def test_nested_and_regularized_models_are_checked_in_float64_too() -> None:
    result = verify(attach(nested(), KernelSize(1e-3)), Plan({"inner/conv": [3, 0, 0, 2]}))
    assert result.passed, str(result)


def test_inputs_of_several_kinds() -> None:
    image, token = keras.Input((None, 9, 2), name="image"), keras.Input((), dtype="int32", name="t")
    x = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, name="conv")(image))
    x = L.Dense(2)(L.Concatenate()([x, L.Embedding(2, 3)(token)]))
    model = randomize(keras.Model({"image": image, "t": token}, {"y": x}))
    result = verify(model, Plan({"conv": [3, 0, 2, 0]}))
    assert result.passed, str(result)


@pytest.mark.parametrize(
    ("sizes", "error"),
    [({"other": [1]}, PlanError), ({"second": [0, 0, 0]}, DeadNetworkError)],
)
def test_bad_plans_are_refused(sizes: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        verify(network(), Plan(sizes))


def test_nothing_is_rounded_on_the_way_into_a_nested_model() -> None:
    """Keras gives the inputs of a copied model the old type, also where the model is nested."""
    inputs = keras.Input((6, 6, 3))
    block = keras.Sequential([keras.Input((6, 6, 4)), keras.layers.Conv2D(4, 3, name="inner")])
    x = block(keras.layers.Conv2D(4, 1, name="outer")(inputs))
    model = randomize(keras.Model(inputs, x))
    found = verify(model, Plan({"outer": [1, 0, 1, 1]}))
    assert found.passed, str(found)
    assert found.error < 1e-13


def test_layers_without_a_configuration_become_float64_too() -> None:
    """Keras cannot configure an Identity that was given a policy, nor a Lambda of a function."""
    inputs = keras.Input((9, 9, 2))
    x = keras.layers.Conv2D(4, 3, padding="same", name="conv")(inputs)
    x = keras.layers.Identity(dtype=keras.DTypePolicy("float32"))(x)
    model = keras.Model(inputs, keras.layers.Lambda(lambda y: y * 2.0)(x))
    twin = module.in_float64(model)
    types = {x.compute_dtype for x in twin.layers[1:]}
    assert types == {"float64"}


def test_a_layer_that_trains_by_default_does_not_make_others_train() -> None:
    """Resizing says training=True, which Keras passes on to the layers that come after it."""
    inputs = keras.Input((9, 9, 2))
    x = keras.layers.Conv2D(4, 3, padding="same", name="conv")(inputs)
    x = keras.layers.BatchNormalization()(keras.layers.Resizing(8, 8)(x))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3)(x))
    statistics = model.get_weights()
    assert verify(model, Plan({"conv": [3, 0, 3, 2]})).passed
    for before, after in zip(statistics, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


# --- folding ---


def without_shifts(model: keras.Model) -> keras.Model:
    result = folded(model)
    result.get_layer("second").bias.assign(np.zeros(3))
    return result


def test_right_folding_passes_and_wrong_folding_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    before = model.get_weights()
    result = module.verify_folding(model)
    assert result.passed
    assert "folded against the model in float64: equal (" in str(result)
    np.testing.assert_equal(model.get_weights(), before)
    monkeypatch.setattr(module, "folded", without_shifts)
    result = module.verify_folding(model)
    assert not result.passed
    assert result.error > 1e-3
    assert "NOT equal" in str(result)


def test_folding_that_nobody_can_see_does_not_pass() -> None:
    model = network()
    head = model.layers[-1]
    head.kernel.assign(head.kernel * 0.0 + 1e-20)
    head.bias.assign([1.0, 1.0])
    assert not module.verify_folding(model).passed


# --- what is tried ---


def around(inputs: Any, body: Callable[[Any], Any]) -> keras.Model:
    return randomize(keras.Model(inputs, L.Dense(2, name="last")(body(inputs))))


def sequence(x: Any) -> Any:
    return L.GlobalAveragePooling1D()(L.Conv1D(4, 3, padding="same", name="conv")(x))


def cut_at_32(model: keras.Model, plan: Plan, *args: Any, **options: Any) -> keras.Model:
    """Equal as long as the open axis is not longer."""
    inputs = keras.Input(model.inputs[0].shape[1:], dtype="float64")
    return keras.Model(inputs, prune(model, plan)(inputs[:, :32]))


def test_open_axes_are_tried_in_several_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, plan = around(keras.Input((None, 3)), sequence), Plan({"conv": [3, 0, 3, 0]})
    result = verify(model, plan)
    assert result.passed
    assert result.tried == ("open sizes 32", "open sizes 37", "open sizes 64", "open sizes 9")
    monkeypatch.setattr(module, "prune", cut_at_32)
    assert not verify(model, plan).passed


def test_sizes_that_the_model_itself_does_not_take_are_left_out() -> None:
    def body(x: Any) -> Any:
        return L.Flatten()(L.GlobalAveragePooling1D()(L.Conv1D(4, 11, name="conv")(x)))

    result = verify(around(keras.Input((None, 3)), body), Plan({"conv": [11, 0, 5, 0]}))
    assert result.passed
    assert len(result.skipped) == 1
    assert "not tried: open sizes 9" in str(result)


def with_all_steps(model: keras.Model, plan: Plan, *args: Any, **options: Any) -> keras.Model:
    """Equal as long as no step is masked."""
    pruned = prune(model, plan)
    inputs = keras.Input((6, 3), dtype="float64")
    x = pruned.get_layer("a")(inputs)
    return keras.Model(inputs, pruned.get_layer("last")(L.GlobalAveragePooling1D()(x)))


@pytest.mark.parametrize("value", [0.0, 7.5])
def test_masked_steps_are_tried(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def body(x: Any) -> Any:
        return L.GlobalAveragePooling1D()(L.Dense(4, name="a")(L.Masking(value)(x)))

    model, plan = around(keras.Input((6, 3)), body), Plan({"a": [1, 0, 1, 0]})
    result = verify(model, plan)
    assert result.passed
    assert result.tried == ("random values", "masked steps")
    monkeypatch.setattr(module, "prune", with_all_steps)
    assert not verify(model, plan)


def test_whole_numbers_cover_what_their_reader_takes() -> None:
    word, image = keras.Input((9,), dtype="int32"), keras.Input((4, 4, 3), dtype="uint8")
    flag = keras.Input((3,), dtype="int32")
    parts = [L.Flatten()(L.Embedding(40, 2)(word)), L.Flatten()(L.Rescaling(0.1)(image))]
    model = keras.Model([word, image, flag], L.Concatenate()([*parts, L.Rescaling(1.0)(flag)]))
    words, pixels, flags = module.random_inputs(model, 50, 0)
    assert (words.min(), words.max()) == (0, 39)
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert (flags.min(), flags.max()) == (0, 1)


# --- what cannot be checked ---


def raises(model: keras.Model, plan: Plan, *args: Any, **options: Any) -> keras.Model:
    raise KeyError("a fault of surgery")


def takes_other_shapes(model: keras.Model, *args: Any, **options: Any) -> keras.Model:
    return keras.Sequential([keras.Input((7, 7, 5)), L.Flatten()])


@pytest.mark.parametrize("wrong", [raises, takes_other_shapes])
def test_an_error_is_a_result_that_says_where(wrong: Wrong, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "prune", wrong)
    result = verify(network(), PLAN)
    assert not result.passed
    assert "the rebuilt network" in result.problem
    assert "NOT checked" in str(result)


def test_wrong_arguments_are_errors() -> None:
    for options in ({"constants": "some"}, {"realize": "some"}, {"round_to": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            verify(network(), PLAN, **options)
    with pytest.raises(TypeError, match="plan"):
        verify(network(), {"first": (1, 2, 3, 4)})  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:Layer .* does not have a .quantize")
@pytest.mark.parametrize("mode", ["int8", "float8"])
def test_quantised_models_are_named_as_such(mode: str) -> None:
    stack = [L.Conv2D(4, 3, name="first"), L.Flatten(), L.Dense(3, name="dense")]
    model = randomize(keras.Sequential([keras.Input((6, 6, 2)), *stack]))
    model.quantize(mode)
    result = verify(model, Plan({"first": [3, 0, 3, 3]}))
    assert not result
    assert f"'dense' ({mode})" in result.problem
    with pytest.raises(PlanError, match=f"'dense' is quantised .{mode}"):
        prune(model, Plan({"dense": [0, 1, 1]}))


def test_the_truth_value_is_the_verdict() -> None:
    assert Verification(0.0, 1.0)
    assert not Verification(1.0, 1.0)
    assert not Verification(0.0, 1.0, problem="no float64")


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_inputs_of_embeddings_are_indices(dtype: str) -> None:
    """Old files declare them as numbers; other indices than those of the table are errors."""
    i, j = keras.Input((4,), dtype=dtype), keras.Input((5, 3))
    x = keras.layers.Embedding(7, 3)(keras.layers.Reshape((2, 2))(i))
    x = keras.layers.Concatenate(1)([keras.layers.Reshape((4, 3))(x), j])
    x = keras.layers.Conv1D(4, 3, name="c")(x)
    model = keras.Model([i, j], keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    indices, numbers = random_inputs(model, 50, 0)
    assert set(indices.ravel()) == set(range(7))
    assert numbers.max() > 7
    assert verify(model, Plan({"c": (3, 0, 3, 3)})).passed
