"""Masks travel beside tensors: every layer of a pruned network gets those of the masked one."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_masks import STEPS, MaskedNetwork, masked_batch, nested
from helpers_models import TOLERANCE, difference, random_plan, randomize, use_float64
from keras import layers as L
from keras import ops

import keras_structsparse as kss
from keras_structsparse.errors import DeadNetworkError, ModelError, PlanError
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.batch_norm_folding import folded
from keras_structsparse.graph.masks import Masks
from keras_structsparse.surgery import prune
from keras_structsparse.surgery.plans import Plan, masked

pruning = importlib.import_module("keras_structsparse.surgery.pruning")

pytestmark = pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


def masks_of_outputs(model: keras.Model, inputs: Any) -> list[Any]:
    outputs = keras.tree.flatten(model(inputs, training=False))
    masks = [getattr(tensor, "_keras_mask", None) for tensor in outputs]
    return [None if mask is None else np.asarray(mask).tolist() for mask in masks]


def check(model: keras.Model, seed: int) -> bool:
    """Pruned equals masked on sequences with masked steps; returns whether something was removed.

    The masks of the outputs are compared as well, since losses read them.
    """
    plan, batch = random_plan(model, seed), masked_batch(seed)
    try:
        reference, pruned = masked(model, plan), prune(model, plan)
    except DeadNetworkError:
        return False
    found = difference(reference, pruned, batch)
    assert found <= TOLERANCE, f"seed {seed}: relative difference {found:.2e}"
    assert masks_of_outputs(reference, batch) == masks_of_outputs(pruned, batch)
    assert difference(model, folded(model), batch) <= TOLERANCE
    return bool(pruned.count_params() < model.count_params())


@pytest.mark.parametrize("seed", range(5))
def test_random_networks(seed: int) -> None:
    check(MaskedNetwork(seed, recurrent=seed == 0).model, seed)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_hundreds_of_random_networks(part: int) -> None:
    """Ten times eighty, which several processes can share; every fourth with recurrent layers."""
    seeds = range(1000 + 80 * part, 1080 + 80 * part)
    removed = [check(MaskedNetwork(s, recurrent=s % 4 == 0).model, s) for s in seeds]
    assert sum(removed) > len(seeds) / 2


# --- one kind each ---


def dense(x: Any, name: str, units: int = 6) -> Any:
    return L.Dense(units, name=name)(x)


def bare_sum(x: Any, free: Any) -> Any:
    return L.GlobalAveragePooling1D()(dense(x, "a") + dense(x, "b"))


def bare_sum_with_a_dead_side(x: Any, free: Any) -> Any:
    return L.GlobalAveragePooling1D()(dense(x, "a") + dense(free, "dead"))


def slice_of_all_kept_channels(x: Any, free: Any) -> Any:
    return L.LSTM(3)(dense(x, "cut")[..., :4])


def sum_with_a_dead_side_without_mask(x: Any, free: Any) -> Any:
    return L.GlobalAveragePooling1D()(L.Add()([dense(x, "a"), dense(free, "dead")]))


def sum_with_a_dead_side_of_another_mask(x: Any, free: Any) -> Any:
    other = dense(L.Masking(1.0)(free), "dead")
    reader = keras.Sequential([keras.Input((STEPS, 6)), L.GlobalAveragePooling1D()], name="reader")
    return reader(L.Add()([dense(x, "a"), other]))


def concatenation_with_a_dead_side(x: Any, free: Any) -> Any:
    return L.GRU(2)(L.Concatenate()([dense(x, "a"), dense(free, "dead")]))


def product_of_masked_sides(x: Any, free: Any) -> Any:
    """The layer computes other values where a side is masked."""
    found = L.Multiply()([dense(x, "left"), dense(free, "right")])
    return L.GlobalAveragePooling1D()(found)


def maximum_of_a_dead_side(x: Any, free: Any) -> Any:
    return L.GlobalAveragePooling1D()(L.Maximum()([dense(x, "dead"), dense(free, "right")]))


def reader_in_a_nested_model(x: Any, free: Any) -> Any:
    inner = [keras.Input((STEPS, 6)), L.Dense(5, name="in"), L.GlobalAveragePooling1D()]
    return keras.Sequential(inner, name="inner")(dense(x, "a"))


def source_in_a_nested_model(x: Any, free: Any) -> Any:
    inner = [keras.Input((STEPS, 3)), L.Masking(), L.Dense(5, name="in")]
    return L.LSTM(2)(keras.Sequential(inner, name="inner")(free)[..., :5] + dense(free, "b", 5))


def attention_that_takes_masks_off(x: Any, free: Any) -> Any:
    found = dense(x, "a")
    return L.GlobalAveragePooling1D()(L.Add()([found, L.MultiHeadAttention(2, 3)(found, found)]))


def given(x: Any, *stack: Any) -> Any:
    """A nested model that stays whole, since it is given another mask; its copy is functional."""
    return nested(*stack, like=x)(x, mask=ops.any(x > 0, -1))


def behind_a_model_given_a_mask(x: Any, free: Any) -> Any:
    return L.GRU(2)(dense(given(x, L.Dense(5)), "a"))


def bare_sum_behind_a_model_given_a_mask(x: Any, free: Any) -> Any:
    return bare_sum(given(free, L.Dense(5)), free)


def sum_with_a_dead_side_behind_another_model(x: Any, free: Any) -> Any:
    """The control: models that are given the same mask hand on different ones."""
    other = given(x, L.Masking(1.0), L.Dense(5))
    return L.GRU(2)(L.Add()([dense(given(x, L.Dense(5)), "a"), dense(other, "dead")]))


KINDS: tuple[Callable[[Any, Any], Any], ...] = (
    bare_sum,
    bare_sum_with_a_dead_side,
    slice_of_all_kept_channels,
    sum_with_a_dead_side_without_mask,
    sum_with_a_dead_side_of_another_mask,
    concatenation_with_a_dead_side,
    product_of_masked_sides,
    maximum_of_a_dead_side,
    reader_in_a_nested_model,
    source_in_a_nested_model,
    attention_that_takes_masks_off,
    behind_a_model_given_a_mask,
    bare_sum_behind_a_model_given_a_mask,
    sum_with_a_dead_side_behind_another_model,
)

SIZES = {"dead": (0,) * 6, "cut": (1, 1, 0, 0, 0, 0)}
SIZES |= dict.fromkeys(("a", "left", "right"), (0, 1, 1, 1, 1, 1))


def network(kind: Callable[[Any, Any], Any]) -> tuple[keras.Model, Plan]:
    values, words = keras.Input((STEPS, 3)), keras.Input((STEPS,), dtype="int32")
    x = kind(L.Masking()(values), values)
    x = L.Concatenate()([x, L.Flatten()(L.Embedding(5, 2)(words))])
    model = randomize(keras.Model([values, words], L.Dense(2, name="last")(x)))
    names = {call.name for call in functional_graph.read(model).layers()}
    return model, Plan({name: sizes for name, sizes in SIZES.items() if name in names})


def agrees(model: keras.Model, plan: Plan) -> bool:
    return difference(masked(model, plan), prune(model, plan), masked_batch(0)) <= TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind(kind: Callable[[Any, Any], Any]) -> None:
    model, plan = network(kind)
    assert agrees(model, plan)
    result = kss.verify(model, plan)
    assert result.passed, str(result)
    assert "masked steps" in str(result)


def test_without_the_check_some_kinds_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the tests above, and verify, find masks that surgery does not look after."""
    monkeypatch.setattr(pruning, "changed_masks", lambda *arguments: [])
    wrong = [network(kind) for kind in KINDS[2:5]]
    assert not any(agrees(*case) for case in wrong)
    assert not any(kss.verify(*case).passed for case in wrong)


def test_without_knowing_who_reads_masks_others_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    propagation = importlib.import_module("keras_structsparse.graph.channels.propagation")
    monkeypatch.setattr(propagation, "follow", lambda graph: Masks({}, {}))
    monkeypatch.setattr(pruning, "changed_masks", lambda *arguments: [])
    assert not agrees(*network(product_of_masked_sides))


def test_what_is_kept_has_a_note_with_the_reason() -> None:
    model, plan = network(sum_with_a_dead_side_of_another_mask)
    notes = kss.compare(model, prune(model, plan)).notes
    assert any("'add" in note and "another mask" in note for note in notes)


def test_a_slice_that_is_left_out_leaves_no_mask_behind() -> None:
    model, plan = network(slice_of_all_kept_channels)
    pruned = prune(model, plan)
    assert pruned.get_layer("cut").units == 2  # Of the four of the slice, two are removed.


def test_models_from_files(tmp_path: Path) -> None:
    """In a file, masks that were given to nested models are arguments of their calls."""
    for kind in (reader_in_a_nested_model, source_in_a_nested_model, slice_of_all_kept_channels):
        model, plan = network(kind)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert agrees(loaded, plan)
        pruned = prune(loaded, plan)
        pruned.save(tmp_path / "pruned.keras")
        again = keras.models.load_model(tmp_path / "pruned.keras")
        assert difference(pruned, again, masked_batch(1)) <= TOLERANCE


def test_a_mask_given_by_the_user_keeps_a_nested_model_whole() -> None:
    values, words = keras.Input((STEPS, 3)), keras.Input((STEPS,), dtype="int32")
    inner = [keras.Input((STEPS, 6)), L.Dense(5, name="in"), L.GlobalAveragePooling1D()]
    given = keras.Sequential(inner, name="inner")(dense(values, "a"), mask=ops.not_equal(words, 0))
    model = randomize(keras.Model([values, words], L.Dense(2)(given)))
    assert agrees(model, Plan({"a": SIZES["a"]}))
    with pytest.raises(PlanError, match="inner/in"):
        prune(model, Plan({"inner/in": (0, 1, 1, 1, 1)}))


def test_a_sequence_without_any_step_gives_what_keras_gives() -> None:
    """The mean over no steps is not a number, whichever channels are left."""
    model, plan = network(bare_sum)
    values, words = masked_batch(0)
    values[2] = 0.0
    left, right = (
        np.asarray(m([values, words])) for m in (masked(model, plan), prune(model, plan))
    )
    np.testing.assert_allclose(left, right, rtol=1e-10)


@keras.saving.register_keras_serializable("tests")
class Halves(L.Layer):
    """A layer of a user, with or without the promise to hand masks on."""

    def __init__(self, supports: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.supports, self.supports_masking = supports, supports
        self.inner = L.Dense(4)

    def call(self, x: Any) -> Any:
        return ops.relu(self.inner(x)) * 0.5

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "supports": self.supports}


@pytest.mark.parametrize("supports", [True, False])
def test_a_layer_of_a_user_is_not_opened_where_masks_reach_it(supports: bool) -> None:
    def kind(x: Any, free: Any) -> Any:
        return L.GlobalAveragePooling1D()(Halves(supports)(dense(x, "a")))

    model, plan = network(kind)
    opened = kss.opened(model)
    assert difference(model, opened, masked_batch(0)) <= TOLERANCE
    assert agrees(model, plan)
    assert agrees(opened, plan)


class Residual(keras.Model):
    """At run time attention takes the mask off; a traced graph has it as an argument."""

    def __init__(self, attends: bool) -> None:
        super().__init__()
        self.masking, self.dense, self.pool = L.Masking(), L.Dense(4), L.GlobalAveragePooling1D()
        self.attention = L.MultiHeadAttention(1, 4) if attends else None

    def call(self, x: Any) -> Any:
        x = self.dense(self.masking(x))
        return self.pool(x if self.attention is None else L.Add()([x, self.attention(x, x)]))


def test_a_traced_model_is_compared_with_masked_steps() -> None:
    example = np.random.default_rng(0).normal(size=(2, STEPS, 3))
    assert kss.traced(Residual(False), example).output_shape == (None, 4)
    with pytest.raises(ModelError, match="same"):
        kss.traced(Residual(True), example)
