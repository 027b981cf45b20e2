"""Numbers are Python's own behind every boundary, or refused by the name of the argument."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import keras_structsparse as kss
from keras_structsparse._validation import interval, nonnegative, one_of, several
from keras_structsparse.data.augmentation import Augmentation, ImageOptions
from keras_structsparse.models.base_architecture import Base
from keras_structsparse.models.base_spec import parse
from keras_structsparse.surgery import Costs
from keras_structsparse.sweeps import Search, Settings, Trial
from keras_structsparse.training.penalty_config import PenaltyConfig
from keras_structsparse.training.recipes import DataRecipe, Recipe, Shrinking
from keras_structsparse.training.shrink.budget import Budget
from keras_structsparse.training.shrink.method import ShrinkMethod

Make = Callable[[Any], Any]
"""Gives a value to one argument, and takes what became of it."""


def settings(**changes: Any) -> Settings:
    given: dict[str, Any] = {"alphas": (1e-3,), **changes}
    return Settings("net", "digits", **given)


FLOATS: dict[str, Make] = {
    "alphas": lambda x: settings(alphas=(x,)).alphas[0],
    "taus": lambda x: settings(taus=(x,)).taus[0],
    "max_drop": lambda x: settings(max_drop=x).max_drop,
    "budget": lambda x: Search(3, budget=x).budget,
    "alpha": lambda x: Trial(x, 0).alpha,
    "reweight": lambda x: Trial(1e-3, 0, x).reweight,
    "learning_rate": lambda x: Trial(1e-3, 0, None, x).learning_rate,
    "learning_rate of Recipe": lambda x: Recipe(learning_rate=x).learning_rate,
    "momentum": lambda x: Recipe(momentum=x).momentum,
    "drops": lambda x: DataRecipe(drops=(x,)).drops[0],
    "reweight of PenaltyConfig": lambda x: PenaltyConfig(reweight=x).reweight,
    "multiply_adds": lambda x: Budget(multiply_adds=x).multiply_adds,
    "max_drop of Budget": lambda x: Budget(max_drop=x).max_drop,
    "removal": lambda x: ShrinkMethod(removal=x).removal,
    "distillation": lambda x: ShrinkMethod(distillation=x).distillation,
    "move": lambda x: Costs(move=x).move,
    "reweight of KernelCount": lambda x: kss.KernelCount(reweight=x).get_config()["reweight"],
    "target": lambda x: kss.TargetMultiplyAdds(x).target,
    "tau": lambda x: kss.TargetMultiplyAdds(0.5, tau=x).tau,
    "area": lambda x: Augmentation(area=(x, 1.0)).area[0],  # type: ignore[index]
}
WHOLES: dict[str, Make] = {
    "seeds": lambda x: settings(seeds=(x,)).seeds[0],
    "shrink_every": lambda x: settings(shrink_every=x).shrink_every,
    "reestimate": lambda x: settings(reestimate=x).reestimate,
    "trials": lambda x: Search(x).trials,
    "seed": lambda x: Trial(1e-3, x).seed,
    "epochs": lambda x: Recipe(epochs=x).epochs,
    "batch_size": lambda x: Recipe(batch_size=x).batch_size,
    "every": lambda x: Shrinking(x).every,
    "side": lambda x: DataRecipe(side=x).side,
    "measured_batches": lambda x: ShrinkMethod(measured_batches=x).measured_batches,
    "block": lambda x: Costs(block=x).block,
    "power": lambda x: kss.KernelCount(power=x).get_config()["power"],
    "image_size": lambda x: ImageOptions(image_size=x).image_size,
    "shift": lambda x: Augmentation(shift=x).shift,
    "Plan": lambda x: kss.Plan({"conv": [x]}).sizes["conv"][0],
}
NO_NUMBERS = [True, np.True_, float("nan"), np.float32("inf"), "0.5", None, [0.5], 1j, {}]
OPTIONAL = ("reweight", "learning_rate", "side", "image_size", "shrink_every", "reestimate")
"""None is a value of these."""


@pytest.mark.parametrize("name", FLOATS)
@given(dtype=st.sampled_from(["float16", "float32", "float64", "longdouble"]), array=st.booleans())
def test_numbers_of_numpy_become_floats(name: str, dtype: str, array: bool) -> None:
    given = np.asarray(0.25, dtype) if array else np.dtype(dtype).type(0.25)
    found = FLOATS[name](given)
    assert type(found) is float
    assert found == FLOATS[name](0.25) == 0.25
    assert json.dumps(found) == "0.25"


@pytest.mark.parametrize("name", WHOLES)
@given(dtype=st.sampled_from(["uint8", "int8", "int32", "uint64"]), array=st.booleans())
def test_whole_numbers_of_numpy_become_ints(name: str, dtype: str, array: bool) -> None:
    given = np.asarray(1, dtype) if array else np.dtype(dtype).type(1)
    found = WHOLES[name](given)
    assert type(found) is int
    assert found == WHOLES[name](1) == 1
    assert json.dumps(found) == "1"


@pytest.mark.parametrize("name", [*FLOATS, *WHOLES])
def test_what_is_no_number_is_refused_by_name(name: str) -> None:
    make, argument = {**FLOATS, **WHOLES}[name], name.partition(" ")[0]
    for value in NO_NUMBERS:
        if (value is None and argument in OPTIONAL) or argument in ("multiply_adds", "max_drop"):
            continue
        with pytest.raises(ValueError, match=f"{argument}.*expected .* Received: "):
            make(value)


def test_a_sweep_over_numbers_of_numpy_is_that_over_pythons() -> None:
    alphas = np.geomspace(1e-3, 1e-1, 3)
    numpys = settings(alphas=alphas, taus=np.array([0, 1e-3]), seeds=np.arange(2))
    plain = settings(alphas=tuple(alphas.tolist()), taus=(0.0, 1e-3), seeds=(0, 1))
    assert numpys == plain
    assert hash(numpys.alphas) == hash(plain.alphas)
    assert json.loads(json.dumps(numpys.record())) == plain.record()
    assert [trial.name for trial in numpys.trials] == [trial.name for trial in plain.trials]
    assert numpys.trials[1].name == "alpha-0.001-seed-0"


@pytest.mark.parametrize("value", [1.0, "1,2", {1: 2}, np.ones((2, 2)), np.array(1.0), None])
def test_sequences_have_one_axis(value: Any) -> None:
    with pytest.raises(ValueError, match=r"alphas: expected numbers in a sequence\. Received: "):
        several("alphas", value, nonnegative)


@pytest.mark.parametrize("value", [(0.3, 0.1), (0.1, 0.1), (0.1,), (0.1, 0.2, 0.3)])
def test_intervals_rise(value: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="reweight: expected two rising numbers"):
        interval("reweight", value)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=0))
def test_minus_zero_is_zero(value: float) -> None:
    assert repr(nonnegative("tau", -0.0)) == "0.0"
    assert nonnegative("tau", value) == value


def test_a_choice_is_the_allowed_value_itself() -> None:
    assert type(one_of("norm", np.str_("l2"), ("l2", "linf"))) is str
    assert type(one_of("power", np.int64(2), (1, 2))) is int
    values: list[Any] = [True, np.array([1, 2]), [], None]
    for value in values:
        with pytest.raises(ValueError, match="power: expected one of"):
            one_of("power", value, (1, 2))


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5])
def test_seeds_are_those_that_numpy_takes(seed: Any) -> None:
    with pytest.raises(ValueError, match=r"seeds: expected a whole number in \[0, 2\*\*32\)"):
        settings(seeds=(seed,))


@pytest.mark.parametrize(
    "text",
    [
        "(64,5)x99999999",
        "(64,5)x1999,(64,5)x2",
        "(99999999,5)",
        "(64,99999)x2",
        f"({'9' * 5000},5)",
    ],
)
def test_bases_too_large_to_be_meant_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"(model|layers): expected .* Received: "):
        parse(text)
    assert len(parse("(1,1)x2000").layers) == 2000, "the control"


def test_a_base_has_whole_numbers() -> None:
    for layer in ((8, 0), (8.5, 3), (True, 3)):
        with pytest.raises(ValueError, match="layers: expected a whole number >= 1"):
            Base((layer,))
