"""The invariant on random networks over all layers; a failure prints code that one can paste."""

from __future__ import annotations

import pytest
from helpers_models import (
    TOLERANCE,
    assert_same_function,
    difference,
    random_batch,
    random_plan,
    use_float64,
)
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from strategies_graphs import FAMILIES, Case, cases

from keras_structsparse.errors import DeadNetworkError
from keras_structsparse.surgery import prune
from keras_structsparse.surgery.plans import masked


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
    """Ten times three hundred, which several processes can share."""

    @seed(part)
    @settings(quick(300), derandomize=False)
    @given(cases(depth=12))
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
