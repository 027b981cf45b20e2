"""Text that is saved with a model by Keras alone, and changes nothing that it computes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers_models import randomize
from keras import layers as L

from keras_structsparse.graph import embedded_text
from keras_structsparse.graph.cloning import clone, copy_model
from keras_structsparse.graph.embedded_text import PREFIX, embed, embedded

TEXT = "größer: [.*](?#x) " + "0123456789" * 500
POLICIES = ("float32", "mixed_float16", "mixed_bfloat16", "float64")


@keras.saving.register_keras_serializable("test_embedded_text")
class Twice(keras.layers.Layer):
    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return inputs * 2.0

    def get_config(self) -> dict[str, object]:
        return dict(super().get_config())


class Bare(keras.layers.Layer):
    """Without a configuration of its own."""

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return inputs * 2.0


LAYERS: dict[str, Callable[[], keras.Layer]] = {
    "conv": lambda: L.Conv2D(4, 3, name="holder"),
    "norm": lambda: L.BatchNormalization(name="holder"),
    "relu": lambda: L.ReLU(name="holder"),
    "dense": lambda: L.Dense(4, name="holder"),
    "own": lambda: Twice(name="holder"),
}


def network(kind: str) -> keras.Model:
    """A network with one layer that is no input, so that this layer has to hold the text."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 4))
    return randomize(keras.Model(inputs, LAYERS[kind]()(inputs)))


def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, 6, 6, 4)).astype("float32")


def outputs(model: keras.Model) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(images())).astype("float64")


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_loaded_model_has_the_text_and_computes_the_same(
    kind: str, policy: str, tmp_path: Path
) -> None:
    keras.config.set_dtype_policy(policy)
    model = network(kind)
    expected, dtypes = outputs(model), [w.dtype for w in model.weights]
    embed(model, TEXT)
    np.testing.assert_array_equal(outputs(model), expected)
    model.save(tmp_path / "model.keras")
    keras.config.set_dtype_policy("float32")  # the file says what the layer computes with
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert embedded(loaded) == embedded(model) == TEXT
    np.testing.assert_array_equal(outputs(loaded), expected)
    assert [w.dtype for w in loaded.weights] == dtypes
    assert loaded.get_layer("holder").compute_dtype == keras.DTypePolicy(policy).compute_dtype
    assert embedded(keras.models.clone_model(loaded)) == TEXT
    assert embedded(keras.models.model_from_json(loaded.to_json())) == TEXT


def test_training_is_the_same() -> None:
    losses = []
    for text in (None, TEXT):
        model = network("conv")
        if text:
            embed(model, text)
        model.compile(keras.optimizers.Adam(0.1), "mse")
        targets = np.ones(model.compute_output_shape((4, 6, 6, 4)))
        losses.append(model.fit(images(), targets, epochs=3, shuffle=False, verbose=0).history)
    assert losses[0] == losses[1]
    assert len(set(losses[0]["loss"])) == 3


def test_a_process_that_knows_only_keras_loads_it(tmp_path: Path) -> None:
    model = network("relu")
    embed(model, TEXT)
    model.save(tmp_path / "model.keras")
    script = (
        "import sys, keras; keras.models.load_model(sys.argv[1]); "
        "assert not any(m.startswith('keras_structsparse') for m in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "model.keras")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_copies_do_not_have_it() -> None:
    """Nor do layers that a layer makes inside; the control is Keras' own clone."""
    model = network("conv")
    embed(model, TEXT)
    assert embedded(copy_model(model)) is None
    double = copy_model(model, lambda layer: {"dtype": "float64"})
    assert embedded(double) is None
    assert double.get_layer("holder").compute_dtype == "float64"
    twin = clone(model.get_layer("holder"))
    assert type(twin.dtype_policy) is keras.DTypePolicy
    assert embedded(keras.models.clone_model(model)) == TEXT
    assert embedded(model) == TEXT, "a copy must not change what it copies"


def test_what_a_user_wrote_into_a_map_is_kept() -> None:
    inputs = keras.Input((6, 6, 4))
    policies = keras.dtype_policies.DTypePolicyMap("float32", {"elsewhere": "float16"})
    x = L.Conv2D(4, 3, dtype=policies, name="mapped")(inputs)
    model = keras.Model(inputs, L.ReLU(name="relu")(x))
    embed(model, TEXT)
    assert model.get_layer("mapped").dtype_policy is policies
    assert list(policies) == ["elsewhere"]
    twin = copy_model(model)
    assert list(twin.get_layer("mapped").dtype_policy) == ["elsewhere"]
    assert embedded(twin) is None


def test_new_text_replaces_old_text() -> None:
    model = network("conv")
    embed(model, "first")
    embed(model, "second")
    assert embedded(model) == "second"
    policies = [layer.dtype_policy for layer in model.layers]
    maps = [p for p in policies if isinstance(p, keras.dtype_policies.DTypePolicyMap)]
    assert [len(each) for each in maps] == [1]


def test_text_that_was_damaged_is_no_text() -> None:
    model = network("conv")
    embed(model, "first")
    (key,) = model.get_layer("holder").dtype_policy
    own = model.get_layer("holder").dtype_policy.default_policy
    for damaged in (key[:-3], PREFIX, PREFIX + "abc"):
        maps = keras.dtype_policies.DTypePolicyMap(own, {damaged: own})
        assert embedded(keras.Sequential([L.Conv2D(4, 3, dtype=maps)])) is None
    assert embedded(network("conv")) is None


def test_text_that_is_too_long_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("relu")
    embed(model, "0" * 1000)
    monkeypatch.setattr(embedded_text, "LARGEST", 1000)
    assert embedded(model) == "0" * 1000
    monkeypatch.setattr(embedded_text, "LARGEST", 999)
    assert embedded(model) is None


def test_a_layer_without_a_configuration_of_its_own_holds_none() -> None:
    """Once loaded, Keras could not save it again."""
    inputs = keras.Input((6,))
    model = keras.Model(inputs, Bare(name="bare")(inputs))
    embed(model, TEXT)
    assert embedded(model) is None
    model = keras.Model(inputs, L.ReLU(name="relu")(Bare(name="bare")(inputs)))
    embed(model, TEXT)
    assert embedded(model) == TEXT


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method:UserWarning")
def test_a_layer_that_can_be_quantized_is_the_last_choice() -> None:
    """Keras does not quantize a layer that has a map of policies."""
    inputs = keras.Input((6,))
    x = L.Dense(4, name="first")(inputs)
    model = keras.Model(inputs, L.Dense(2, name="second")(L.ReLU(name="relu")(x)))
    embed(model, TEXT)
    assert embedded(model) == TEXT
    model.quantize("int8")
    assert model.get_layer("first").quantization_mode == "int8"
    assert embedded(model) == TEXT
    alone = keras.Sequential([keras.Input((6,)), L.Dense(4)])
    embed(alone, TEXT)
    with pytest.raises(ValueError, match="map_float32"):
        alone.quantize("int8")
