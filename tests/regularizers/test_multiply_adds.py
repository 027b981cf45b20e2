"""MultiplyAdds on models: what it counts, that it trains, that it is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_coupled import short_network, stream_network
from helpers_models import random_batch, use_float64
from keras import layers as L

import keras_structsparse as kss
from keras_structsparse.graph import nested_groups
from keras_structsparse.graph.functional_graph import read
from keras_structsparse.graph.prunable_layers import batch_norm_pairs

Array = Any


SIZES = {
    "stem": (3, 0, 3, 3),
    "b1a": (2, 0, 2, 2, 2),
    "b1b": (3, 0, 3, 3),
    "side": (3, 3, 0),
    "main": (1, 0, 1, 1, 1, 1),
    "last": (3, 0, 3, 0),
}


def with_sizes(model: keras.Model, sizes: dict[str, tuple[int, ...]]) -> keras.Model:
    """Kernels of norm 1, all of it in the outermost ring of their size: their s' is their size."""
    pairs = batch_norm_pairs(read(model))
    for name, wanted in sizes.items():
        layer = model.get_layer(name)
        shape = tuple(layer.kernel.shape)
        levels = nested_groups.levels(shape[:-2]).reshape(shape[:-2])
        kernel = np.zeros(shape)
        for j in np.flatnonzero(wanted):
            kernel[(*np.argwhere(levels == wanted[j])[0], slice(None), j)] = shape[-2] ** -0.5
        layer.kernel.assign(kernel)
        if name in pairs:
            pairs[name].gamma.assign(np.sign(wanted))
    return model


def convolutions(profile: kss.Profile) -> int:
    return sum(layer.multiply_adds for layer in profile.layers if layer.name != "classes")


@pytest.mark.parametrize("reweight", [0.0, 0.1])
def test_the_penalty_is_the_multiply_adds_of_the_pruned_stream_network(reweight: float) -> None:
    """Where norms are 1 or 0, relaxed widths and sizes are widths and sizes: (34) is (10)."""
    use_float64()
    penalty_on = kss.MultiplyAdds(1.0, reweight=reweight)
    model = kss.attach(with_sizes(stream_network(), SIZES), penalty_on)
    penalty = float(sum(model.losses))
    pruned = kss.prune(model, kss.plan(model, tau=0))
    assert penalty == pytest.approx(convolutions(kss.profile(pruned)), rel=1e-12)
    assert penalty < 0.6 * convolutions(kss.profile(model)), "the control does not fail"


def test_a_stream_is_as_wide_as_the_union_of_what_its_layers_keep() -> None:
    """One of two kernels of a channel counts as the root of a half, not as 0."""
    use_float64()
    readers = []
    for left in (4, 3, 2):
        sizes = {**SIZES, "stem": (3,) * 4, "b1b": (3,) * left + (0,) * (4 - left)}
        model = kss.attach(with_sizes(stream_network(), sizes), kss.MultiplyAdds(1.0))
        readers.append(float(kss.regularizers_of(model)["main"](model.get_layer("main").kernel)))
    width = np.array([4.0, 3 + 0.5**0.5, 2 + 2 * 0.5**0.5])
    np.testing.assert_allclose(readers, 4 * 4 * 5 * width, rtol=1e-12)


@pytest.mark.parametrize(
    "regularizer", [kss.MultiplyAdds(), kss.MultiplyAdds(1e-6, "group_scaled")]
)
def test_a_kernel_alone_has_no_penalty(regularizer: Any) -> None:
    kernel = np.ones((3, 3, 2, 4))
    for call in (regularizer, regularizer.subgradient, lambda k: regularizer.prox(k, 1.0)):
        with pytest.raises(RuntimeError, match=r"kss\.attach\(model, MultiplyAdds"):
            call(kernel)
    layer = L.Conv2D(2, 3, kernel_regularizer=regularizer)
    model = keras.Sequential([keras.Input((8, 8, 1)), layer])
    with pytest.raises(RuntimeError, match=r"kss\.attach"):
        model.losses  # noqa: B018


def test_what_does_not_go_with_it_is_refused() -> None:
    for options in ({"coupled": True}, {"weights": "params"}):
        with pytest.raises(ValueError, match="MultiplyAdds weighs every layer"):
            kss.attach(stream_network(), kss.MultiplyAdds(), **options)
    with pytest.raises(ValueError, match=r"norm: expected one of.*Received: 'linf'"):
        kss.MultiplyAdds(norm="linf")
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, L.Conv2D(2, 3, name="conv")(inputs))
    with pytest.raises(kss.ModelError, match=r"'conv'.*not known"):
        kss.attach(model, kss.MultiplyAdds())


def test_the_config_round_trip() -> None:
    model = kss.attach(stream_network(), kss.MultiplyAdds(1e-7, groups="ring", reweight=0.1))
    for regularizer in kss.regularizers_of(model).values():
        serialized = keras.regularizers.serialize(regularizer)
        assert serialized["registered_name"] == "keras_structsparse>MultiplyAdds"
        again = keras.regularizers.deserialize(serialized)
        assert again.get_config() == regularizer.get_config()
        assert again.links == regularizer.links


def data(model: keras.Model) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return random_batch(model, samples=64).astype("float32"), rng.normal(size=(64, 2))


def compiled(model: keras.Model, eagerly: bool = False) -> keras.Model:
    """With the optimizer; eagerly, a step takes a second and tracing takes none."""
    optimizer = kss.Proximal(keras.optimizers.SGD(0.05, momentum=0.9))
    model.compile(optimizer, "mse", run_eagerly=eagerly)
    return model


@pytest.mark.slow
def test_training_removes_kernels_of_a_stream_together() -> None:
    model = compiled(kss.attach(short_network(), kss.MultiplyAdds(3e-4)))
    model.fit(*data(model), epochs=30, batch_size=32, verbose=0)
    sizes = kss.plan(model, tau=0).sizes
    dead = {name: np.array(kernels) == 0 for name, kernels in sizes.items()}
    assert 0 < sum(map(np.sum, dead.values())) < sum(map(np.size, dead.values()))
    assert dead["stem"].any()
    np.testing.assert_array_equal(dead["stem"], dead["outer"])


def test_only_the_proximal_step_knows_the_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kss.Proximal, "_proximal_step", lambda *arguments: [])
    weights = []
    for alpha in (0.0, 1e-4):
        keras.utils.set_random_seed(0)
        model = compiled(kss.attach(stream_network(), kss.MultiplyAdds(alpha)), eagerly=True)
        penalty = kss.penalty(model)
        model.fit(*data(model), epochs=1, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    assert penalty > 6e-2, "the control does not fail"
    for left, right in zip(*weights, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-6)


def test_saves_loads_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    model = compiled(kss.attach(short_network(), kss.MultiplyAdds(1e-4)), eagerly=True)
    model.fit(*data(model), epochs=2, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert kss.penalty(loaded) == kss.penalty(model) > 0
    before = model.get_weights()
    for each in (model, loaded):
        each.fit(*data(model), epochs=2, shuffle=False, verbose=0)
    for left, right in zip(model.get_weights(), loaded.get_weights(), strict=True):
        assert np.array_equal(left, right)
    assert any(not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_loaded_model_finds_the_layers_that_it_reads(tmp_path: Path) -> None:
    model = kss.attach(stream_network(), kss.MultiplyAdds(1e-4))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [float(x) for x in loaded.losses] == [float(x) for x in model.losses]
    # The control: one layer by itself does not know the others.
    alone = keras.models.load_model(tmp_path / "model.keras").get_layer("main")
    with pytest.raises(RuntimeError, match=r"kss\.attach.*kss\.Proximal"):
        alone.losses  # noqa: B018
    assert len(kss.attach(loaded, kss.MultiplyAdds(1e-4)).losses) == 6


def test_two_variables_of_one_name_are_refused() -> None:
    def inner(name: str) -> keras.Model:
        inputs = keras.Input((8, 8, 3))
        return keras.Model(inputs, L.Conv2D(3, 3, padding="same", name="conv")(inputs), name=name)

    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, inner("two")(inner("one")(inputs)))
    with pytest.raises(kss.ModelError, match="'conv': another variable"):
        kss.attach(model, kss.MultiplyAdds())
    assert len(kss.attach(model, kss.KernelSize()).losses) == 2
