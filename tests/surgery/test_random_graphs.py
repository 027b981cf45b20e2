"""The invariant on random networks over all layers; a failure prints code that one can paste."""

from __future__ import annotations

import keras
import pytest
from helpers_models import (
    TOLERANCE,
    assert_same_function,
    difference,
    random_batch,
    random_plan,
    randomize,
    use_float64,
)
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from keras import layers as L
from keras import ops
from strategies_graphs import FAMILIES, Case, cases

from keras_structsparse.errors import DeadNetworkError
from keras_structsparse.graph.channels import propagation
from keras_structsparse.surgery import prune
from keras_structsparse.surgery.plans import Plan, masked

pytestmark = pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


def quick(examples: int) -> settings:
    """Without shrinking, which rebuilds hundreds of networks; the cases are small."""
    return settings(
        max_examples=examples,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def check(case: Case) -> None:
    """Pruned equals masked; the plan must remove something that can be seen in the outputs."""
    model = case.build()
    plan, inputs = random_plan(model, case.seed), random_batch(model, case.seed)
    reference = masked(model, plan)
    assume(difference(model, reference, inputs) > 1e3 * TOLERANCE)
    try:
        pruned = prune(model, plan, realize=case.realize, round_to=case.round_to)
    except DeadNetworkError:
        assume(False)
    assert_same_function(reference, pruned, inputs)


@quick(8)
@given(cases())
def test_pruned_equals_masked(case: Case) -> None:
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_by_itself(family: str) -> None:
    """Between convolutions and normalisations, which make constants of all kinds."""

    @quick(10)
    @given(cases(("convolution", "normalization", "activation", family, family), depth=6))
    def run(case: Case) -> None:
        check(case)

    run()


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_thousands_of_networks(part: int) -> None:
    """Ten times one hundred, which several processes can share."""

    @seed(part)
    @settings(quick(100), derandomize=False)
    @given(cases(depth=12))
    def run(case: Case) -> None:
        check(case)

    run()


USERS = ("places", "options", "named inputs", "ranks", "wrapped", "given activation", "arrays")
"""What users do beside stacking layers."""


@quick(8)
@given(cases(("convolution", "activation", *USERS), depth=5))
def test_what_users_do_with_a_graph(case: Case) -> None:
    check(case)


def check_opened(case: Case) -> None:
    """The same with inputs of which some sizes are not known, on inputs of the known sizes."""
    inputs, opened = random_batch(case.build(), case.seed), case.opened()
    try:
        model = opened.build()
        assert_same_function(model, model, inputs)
    except Exception:  # what Keras refuses at open sizes, whatever it raises
        assume(False)
    plan = random_plan(model, case.seed)
    reference = masked(model, plan)
    assume(difference(model, reference, inputs) > 1e3 * TOLERANCE)
    try:
        pruned = prune(model, plan, realize=case.realize, round_to=case.round_to)
    except DeadNetworkError:
        assume(False)
    assert_same_function(reference, pruned, inputs)


OPEN = ("convolution", "activation", "merge", "reduced", "rearranged", *USERS)


@quick(8)
@given(cases(OPEN, depth=5))
def test_sizes_that_are_not_known(case: Case) -> None:
    check_opened(case)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(5))
def test_thousands_of_sizes_that_are_not_known(part: int) -> None:
    @seed(part)
    @settings(quick(100), derandomize=False)
    @given(cases(OPEN, depth=8))
    def run(case: Case) -> None:
        check_opened(case)

    run()


@pytest.mark.slow
@pytest.mark.parametrize("part", range(5))
def test_thousands_of_things_that_users_do(part: int) -> None:
    @seed(part)
    @settings(quick(100), derandomize=False)
    @given(cases(("convolution", "activation", *USERS), depth=8))
    def run(case: Case) -> None:
        check(case)

    run()


@quick(4)
@given(cases())
def test_the_code_of_a_case_builds_the_same_network(case: Case) -> None:
    first, second = case.build(), case.build()
    assert_same_function(first, second, random_batch(first), tolerance=0.0)
    assert [x.name for x in first.layers] == [x.name for x in second.layers]
    compile(repr(case), "case", "exec")


def test_forgotten_constants_are_found() -> None:
    """The control: surgery that drops constants differs on some of these networks."""
    found = []

    @quick(15)
    @given(cases(("convolution", "normalization", "activation")))
    def run(case: Case) -> None:
        model = case.build()
        plan, inputs = random_plan(model, case.seed), random_batch(model, case.seed)
        pruned = prune(model, plan, constants="drop", realize=case.realize)
        found.append(difference(masked(model, plan), pruned, inputs) > 1e3 * TOLERANCE)

    run()
    assert sum(found) >= 5


def test_arguments_that_no_rule_knows_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: if every rule is said to know all arguments, some networks are wrong."""
    monkeypatch.setattr(propagation, "not_understood", lambda site: None)
    wrong = 0
    for initial in (0.5, 2.0, 4.0):
        inputs = keras.Input((5, 3))
        x = L.Conv1D(4, 3, padding="same", name="first")(inputs)
        x = ops.max(x, axis=1, keepdims=True, initial=initial)
        model = randomize(keras.Model(inputs, L.Conv1D(2, 1)(x)))
        plan = Plan({"first": [0, 0, 3, 3]})
        wrong += difference(masked(model, plan), prune(model, plan), random_batch(model)) > 1e-3
    assert wrong
