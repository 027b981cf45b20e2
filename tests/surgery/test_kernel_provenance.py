"""Whose kernels a network has left, after one cut and after several."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers_models import assert_same_function, random_batch, random_plan, residual_network

from keras_structsparse.errors import PlanError
from keras_structsparse.graph.functional_graph import read
from keras_structsparse.graph.prunable_layers import kernel_layers
from keras_structsparse.surgery import prune
from keras_structsparse.surgery.kernel_provenance import Ancestry
from keras_structsparse.surgery.plans import Plan, masked, plan


def twice(seed: int) -> tuple[keras.Model, list[keras.Model], list[Ancestry]]:
    """A network, what two cuts leave of it, and the ancestry of each."""
    base = residual_network(seed=seed)
    models, found = [base], [Ancestry.of(base)]
    for cut in (seed, seed + 100):
        smaller = prune(models[-1], random_plan(models[-1], cut), realize="crop")
        found.append(found[-1].followed_by(Ancestry.between(models[-1], smaller)))
        models.append(smaller)
    return base, models, found


@pytest.mark.parametrize("seed", range(3))
def test_every_kernel_descends_from_the_one_it_was_cut_out_of(seed: int) -> None:
    """Most entries stay as they were, so they tell whose they are."""
    base, models, found = twice(seed)
    old = kernel_layers(read(base))
    for name, (layer, numbers) in found[-1].layers.items():
        new = models[-1].get_layer(name)
        whole, left = np.asarray(old[layer].kernel), np.asarray(new.kernel)
        for place, number in enumerate(numbers):
            values = left[..., place][left[..., place] != 0]
            own, others = whole[..., number], np.delete(whole, number, axis=-1)
            assert 2 * np.isin(values, own).sum() >= values.size
            assert not np.isin(values, others).any()


@pytest.mark.parametrize("seed", range(3))
def test_the_plan_of_a_cut_network_in_kernels_of_the_base(seed: int) -> None:
    """A cut keeps the sizes that a plan leaves."""
    base = residual_network(seed=seed)
    wanted = random_plan(base, seed)
    pruned = prune(base, wanted, realize="crop")
    left = Ancestry.between(base, pruned)
    found = left.of_base(plan(pruned, 0.0)).sizes
    reference = plan(masked(base, wanted), 0.0).sizes
    assert set(found) == set(reference)
    for name, sizes in found.items():
        # Surgery also removes what nothing reads and what has become constant.
        assert all(size in (0, kept) for size, kept in zip(sizes, reference[name], strict=True))
    assert found != plan(base, 0.0).sizes


def test_what_has_no_base_is_left_out_and_what_is_gone_has_size_zero() -> None:
    first = Ancestry({"a": ("a", (1, 3)), "b": ("b", (0,))}, {"a": 4, "b": 2})
    later = Ancestry({"a": ("a", (1,)), "spread": ("c", (0,))}, {"a": 2, "b": 1})
    assert first.followed_by(later).layers == {"a": ("a", (3,))}
    assert first.followed_by(later).of_base(Plan({"a": [2]})).sizes == {
        "a": (0, 0, 0, 2),
        "b": (0, 0),
    }
    with pytest.raises(PlanError, match=r"layer 'a' has 2 kernels\. Received 3 sizes"):
        first.of_base(Plan({"a": [1, 1, 1], "b": [1]}))
    with pytest.raises(PlanError, match=r"layer 'b' has 1 kernels\. Received 0 sizes"):
        first.of_base(Plan({"a": [1, 1]}))


def test_it_can_be_written_down() -> None:
    first = Ancestry({"a": ("base", (1, 3))}, {"base": 4})
    assert Ancestry.from_json(first.to_json()) == first
    assert Ancestry.from_json(first.to_json()) != Ancestry({"a": ("base", (1, 2))}, {"base": 4})
    for text in ("{", "[]", '{"format": "other", "layers": {}, "widths": {}}', "{}"):
        with pytest.raises(PlanError, match="ancestry: expected"):
            Ancestry.from_json(text)


@pytest.mark.parametrize("realize", ["crop", "split"])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_left_of_a_plan_is_what_the_network_has(realize: str, seed: int) -> None:
    """A layer without kernels takes those ahead of it along; the control is the plan itself."""
    base = residual_network(seed=seed)
    wanted = Plan({**random_plan(base, seed).sizes, "b1b": (0,) * 8})
    pruned = prune(base, wanted, realize=realize)
    found = Ancestry.between(base, pruned)
    left = found.left_of(wanted)
    assert not any(left.sizes["b1a"])
    assert any(wanted.sizes["b1a"]), "the control does not fail"
    alive = dict.fromkeys(wanted.sizes, 0)
    for name, (layer, _) in found.layers.items():
        kernel = np.asarray(pruned.get_layer(name).kernel)
        if layer in alive:
            alive[layer] += int(kernel.any(axis=tuple(range(kernel.ndim - 1))).sum())
    assert {name: np.count_nonzero(own) for name, own in left.sizes.items()} == alive
    assert_same_function(pruned, prune(base, left, realize=realize), random_batch(base))
