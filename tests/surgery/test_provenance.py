"""Where a pruned model comes from: known in another process, and after several cuts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers_models import Array, chain, random_plan, randomize, residual_network
from hypothesis import given
from hypothesis import strategies as st
from keras import layers as L

import keras_structsparse as kss
from keras_structsparse.errors import PlanError
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.graph.embedded_text import embed
from keras_structsparse.surgery import origins, prune
from keras_structsparse.surgery.index_ranges import from_ranges, to_ranges
from keras_structsparse.surgery.model_structure import Structure
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.surgery.provenance import (
    Provenance,
    from_base,
    notes,
    record,
    recorded,
)
from keras_structsparse.surgery.weight_origins import between

PLAN = Plan({"conv": (5, 0, 3, 1, 1, 0)})


def network(names: tuple[str, str] = ("conv", "head")) -> keras.Model:
    conv = L.Conv2D(6, 5, padding="same", activation="sigmoid", name=names[0])
    return chain(conv, L.GlobalAveragePooling2D(), L.Dense(2, name=names[1]), shape=(8, 8, 3))


def found_in(pruned: keras.Model) -> Provenance:
    found = recorded(pruned)
    assert found is not None
    return found


def saved(model: keras.Model, folder: Path, name: str) -> keras.Model:
    model.save(folder / f"{name}.keras")
    return keras.models.load_model(folder / f"{name}.keras")


def lists(model: keras.Model, pruned: keras.Model) -> list[object]:
    return [o and (o.weight, [p.tolist() for p in o.places]) for o in origins(model, pruned)]


@pytest.mark.parametrize("realize", ["crop", "split", "none"])
def test_a_loaded_pair_is_known_as_before(realize: str, tmp_path: Path) -> None:
    model = residual_network(seed=1)
    pruned = prune(model, random_plan(model, 1), realize=realize)
    before, after = saved(model, tmp_path, "model"), saved(pruned, tmp_path, "pruned")
    assert recorded(after) == recorded(pruned) is not None
    assert lists(before, after) == lists(model, pruned) == lists(before, pruned)
    assert kss.Ancestry.between(before, after) == kss.Ancestry.between(model, pruned)
    assert kss.compare(before, after) == kss.compare(model, pruned)
    assert any(row.kernels[0] > row.kernels[1] > 0 for row in kss.compare(before, after).layers)


def test_every_entry_is_where_the_provenance_says(tmp_path: Path) -> None:
    """But for carriers, which take up others; the control is another kernel's column."""
    model = residual_network(seed=2)
    pruned = saved(prune(model, random_plan(model, 2), realize="split"), tmp_path, "pruned")
    found: list[tuple[bool, bool]] = []
    for new, origin in zip(pruned.weights, origins(model, pruned), strict=True):
        if origin is not None and new.name == "kernel":
            own = origin.of(np.asarray(model.weights[origin.weight]))
            left = np.asarray(new) != 0
            pairs = zip(np.asarray(new)[left], own[left], own[..., ::-1][left], strict=True)
            found += [(value == mine, value == other) for value, mine, other in pairs]
    same, control = np.mean(found, axis=0)
    assert len(found) > 1000
    assert same > 0.9
    assert control < 0.5


def test_notes_are_loaded(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, name="conv")(inputs)
    x = L.Lambda(lambda t: t * 2.0, name="odd", output_shape=(6, 6, 4))(x)
    model = keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(x)))
    pruned = prune(model, Plan({"conv": (3, 3, 0, 3)}))
    found = notes(pruned)
    assert "'odd'" in found[0]
    pruned.save(tmp_path / "pruned.keras")
    loaded = keras.models.load_model(tmp_path / "pruned.keras", safe_mode=False)
    assert notes(loaded) == kss.compare(model, loaded).notes == found
    assert notes(model) == ()


def test_a_layer_that_is_called_like_a_part_is_none() -> None:
    """And the parts are found whatever they are called."""
    inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(6, 5, padding="same", name="conv")(inputs)
    x = L.Conv2D(3, 1, name="conv_part_0")(x)
    model = randomize(keras.Model(inputs, L.Conv2D(2, 1, name="x_part_0")(x)))
    pruned = prune(model, PLAN, realize="split")
    assert "conv_part_0_" in [layer.name for layer in pruned.layers]
    conv, own, other = kss.compare(model, pruned).layers
    assert [row.name for row in (conv, own, other)] == ["conv", "conv_part_0", "x_part_0"]
    assert conv.parts == ((5, 5), (3, 3), (1, 1))
    assert [row.kernels for row in (conv, own, other)] == [(6, 4), (3, 3), (2, 2)]
    assert own.parts == other.parts == ()


def without_record(pruned: keras.Model) -> keras.Model:
    """As a version made it that recorded nothing."""
    found = copy_model(pruned)
    assert recorded(found) is None
    return found


def test_without_a_record_layers_are_compared_by_name() -> None:
    model = network()
    old = without_record(prune(model, PLAN, realize="split"))
    rows = {row.name: row for row in kss.compare(model, old).layers}
    assert list(rows) == ["conv", "head", "conv_part_0", "conv_part_1", "conv_part_2"]
    assert rows["conv"].kernels == (6, 0)
    assert rows["conv_part_2"].kernels[0] == 0
    assert rows["head"].params[1] > 0
    assert kss.compare(model, old).notes == ()


def test_after_several_cuts_every_earlier_network_is_known(tmp_path: Path) -> None:
    base = residual_network(seed=0)
    middle = prune(base, random_plan(base, 0), realize="split")
    last = saved(prune(middle, random_plan(middle, 1), realize="split"), tmp_path, "last")
    whole, half, step = (
        kss.Ancestry.between(*pair) for pair in ((base, last), (base, middle), (middle, last))
    )
    assert half.followed_by(step).layers == whole.layers
    assert whole.layers != step.layers
    rows = {row.name for row in kss.compare(base, last).layers}
    assert not any("_part_" in name for name in rows)
    found = from_base(last)
    assert found is not None
    assert found.source == between(base, last).source != found_in(last).source
    held = [layer for layer in last.layers if type(layer.dtype_policy) is not keras.DTypePolicy]
    assert len(held) == 1, "a layer of the network before took its record along"


def test_a_network_of_another_structure_is_refused_by_name() -> None:
    model, pruned = network(), prune(network(), PLAN, realize="crop")
    model.name, pruned.name = "before", "after"
    assert between(model, pruned).layers["conv"] == "conv"
    renamed = network(("other", "head"))
    renamed.name = "renamed"
    with pytest.raises(ValueError, match="model 'renamed'") as caught:
        origins(renamed, pruned)
    assert "Received: the model 'after', which was made of another one" in str(caught.value)
    assert "layer 'other' has kernel (5, 5, 3, 6), bias (6,) in 'renamed', no weights in" in str(
        caught.value
    )
    with pytest.raises(ValueError, match="'after', which holds no record of surgery"):
        origins(model, without_record(pruned))


def test_a_model_that_was_changed_since_has_no_record() -> None:
    pruned = prune(network(), PLAN, realize="crop")
    assert recorded(pruned) is not None
    inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, name="more")(L.Conv2D(3, 1, name="first")(inputs))
    x = pruned.get_layer("global_average_pooling2d")(x)
    other = keras.Model(inputs, pruned.get_layer("head")(x))
    record(other, found_in(pruned))
    assert recorded(other) is None
    embed(pruned, "{}")
    assert recorded(pruned) is None


def test_layers_with_weights_of_their_own_are_new(tmp_path: Path) -> None:
    """A bias that surgery adds comes from nowhere."""
    model = chain(
        L.Conv2D(3, 3, activation="sigmoid", name="conv"),
        L.GlobalAveragePooling2D(),
        L.Dense(2, use_bias=False, name="last"),
        shape=(7, 6, 2),
    )
    pruned = saved(prune(model, Plan({"conv": [3, 0, 3]})), tmp_path, "pruned")
    kernel, bias = found_in(pruned).weights["last"]
    assert bias is None
    assert kernel is not None
    assert (kernel.layer, kernel.number, kernel.places) == ("last", 0, ((0, 2), (0, 1)))


def test_it_is_written_and_read_as_json() -> None:
    base = residual_network(seed=3)
    middle = prune(base, random_plan(base, 3), realize="split")
    found = found_in(prune(middle, random_plan(middle, 4)))
    assert found.earlier == recorded(middle) is not None
    assert Provenance.from_json(found.to_json()) == found
    changed = replace(found, notes=("more",))
    assert Provenance.from_json(changed.to_json()) == changed != found
    for text in ("{", "[]", "{}", json.dumps({"format": "other"}), '{"format": 3}'):
        with pytest.raises(PlanError, match="provenance: expected"):
            Provenance.from_json(text)
    with pytest.raises(PlanError, match="provenance: expected"):
        Provenance.from_json(re.sub(r'"indices":\[\[.*?\],', '"indices":[', found.to_json()))


@given(st.lists(st.integers(0, 40)))
def test_ranges_hold_the_indices_in_their_order(indices: list[int]) -> None:
    assert from_ranges(to_ranges(indices)) == tuple(indices)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("layers", None),
        ("layers", ["conv"]),
        ("weights", {"conv": [["gone", 0, [0, 0, 0, 0]], None]}),
        ("weights", {"conv": [["conv", 9, [0, 0, 0, 0]], None]}),
        ("weights", {"conv": [["conv", -1, [0]], None]}),
        ("indices", [[50, 3]] * 8),
        ("indices", [[0, 10**12]] * 8),
        ("notes", 3),
        ("earlier", 3),
    ],
)
def test_a_damaged_record_is_no_record(change: str, value: object) -> None:
    model = network()
    pruned = prune(model, PLAN)
    text = found_in(pruned).to_json()
    embed(pruned, text)
    assert recorded(pruned) is not None
    embed(pruned, json.dumps({**json.loads(text), change: value}))
    assert recorded(pruned) is None
    assert kss.compare(model, pruned).notes == ()
    with pytest.raises(ValueError, match="holds no record of surgery"):
        kss.Ancestry.between(model, pruned)
    embed(pruned, "[" * 100_000)
    assert recorded(pruned) is None


def test_the_record_is_small() -> None:
    """Less than a hundredth of the weights of an ordinary network."""
    model = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=10)
    structure = Structure.of(functional_graph.read(model))
    assert not structure.differences(structure)
    pruned = prune(model, Plan({}))
    (key,) = (k for x in pruned.layers for k in getattr(x.dtype_policy, "keys", tuple)())
    assert 1_000 < len(key) < 100_000


SCRIPT = """
import sys
import numpy as np, keras
keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")
import keras_structsparse as kss
folder = sys.argv[1]
model, pruned = (keras.models.load_model(f"{folder}/{n}.keras") for n in ("model", "pruned"))
kss.carry_optimizer(model, pruned)
data = np.load(f"{folder}/data.npz")
pruned.train_on_batch(data["x"], data["y"])
np.savez(f"{folder}/after.npz", *pruned.get_weights())
print(kss.compare(model, pruned).to_json())
print(kss.Ancestry.between(model, pruned).to_json())
"""


def step(pruned: keras.Model, x: Array, y: Array) -> list[Array]:
    pruned.train_on_batch(x, y)
    return [keras.ops.convert_to_numpy(weight) for weight in pruned.weights]


def distance(left: list[Array], right: list[Array]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("make", [keras.optimizers.Adam, keras.optimizers.Nadam])
def test_training_continues_in_a_loaded_pair(make: type, tmp_path: Path) -> None:
    """In this process and in another one; the control starts with a new optimizer."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    model, rng = network(), np.random.default_rng(0)
    x, y = rng.normal(size=(8, 8, 8, 3)), rng.normal(size=(8, 2))
    model.compile(make(0.05), "mse")
    for _ in range(3):
        model.train_on_batch(x, y)
    pruned = prune(model, PLAN, realize="split")
    before, after = saved(model, tmp_path, "model"), saved(pruned, tmp_path, "pruned")
    np.savez(tmp_path / "data.npz", x=x, y=y)
    control = copy_model(pruned)
    control.compile(make(0.05), "mse")
    expected = step(kss.carry_optimizer(model, pruned), x, y)
    assert distance(step(kss.carry_optimizer(before, after), x, y), expected) < 1e-10
    assert distance(step(control, x, y), expected) > 1e-3

    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "after.npz") as there:
        assert distance([there[name] for name in there.files], expected) < 1e-10
    compared, ancestry = _texts(done.stdout)
    assert json.loads(compared) == json.loads(kss.compare(model, pruned).to_json())
    assert kss.Ancestry.from_json(ancestry) == kss.Ancestry.between(model, pruned)


def _texts(output: str) -> tuple[str, str]:
    """Two JSON values, one after the other."""
    _, end = json.JSONDecoder().raw_decode(output.lstrip())
    return output.lstrip()[:end], output.lstrip()[end:].strip()
