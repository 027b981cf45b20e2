"""Models saved at commit 5826a2d load, and their penalties have the values recorded then."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers_prox import numpy

import keras_structsparse as kss
from keras_structsparse.regularizers import GroupSparsityRegularizer
from keras_structsparse.regularizers.attachment import regularizers_of

FILES = Path(__file__).resolve().parents[1] / "data_files"

RECORDED = {
    "coupled_kernel_size": (0.09177064895629883, 0.07303934544324875),
    "multiply_adds": (0.3655277192592621, 4.592064380645752),
}
"""The penalties of the layers `first` and `second`, at commit 5826a2d."""

WRITERS = [
    {"kernel": "first/kernel", "scale": "first_norm/gamma", "first": 0},
    {"kernel": "second/kernel", "scale": None, "first": 0},
]
NOTHING = {"reads": [], "constant": 0.0, "joint": [], "joined": []}
LINKS = {
    "coupled_kernel_size": [
        {
            **NOTHING,
            "joint": [{"writers": WRITERS, "width": 4, "weight": 1.414213562373095}],
            "joined": [[0, 4]],
        },
        {**NOTHING, "joined": [[0, 4]]},
    ],
    "multiply_adds": [
        {**NOTHING, "constant": 72.0},
        {**NOTHING, "reads": [{"writers": WRITERS[:1], "width": 4, "weight": 36.0}]},
    ],
}
"""The configuration key `links`, as those files hold it."""

REGULARIZERS: dict[str, Callable[[], GroupSparsityRegularizer]] = {
    "coupled_kernel_size": lambda: kss.KernelSize(0.01, reweight=0.5),
    "multiply_adds": lambda: kss.MultiplyAdds(1e-4),
}


def _residual_network() -> keras.Model:
    """The network of the files: a residual sum written by two layers."""
    inputs = keras.Input((6, 6, 2), name="image")
    first = keras.layers.Conv2D(4, 3, padding="same", name="first")(inputs)
    first = keras.layers.BatchNormalization(name="first_norm")(first)
    second = keras.layers.ReLU(name="relu")(first)
    second = keras.layers.Conv2D(4, 3, padding="same", name="second")(second)
    outputs = keras.layers.Add(name="sum")([first, second])
    return keras.Model(inputs, outputs, name="residual")


def _penalties(model: keras.Model) -> list[float]:
    for regularizer in regularizers_of(model).values():
        regularizer.bind({variable.path: variable for variable in model.trainable_variables})
    return [float(numpy(loss)) for loss in model.losses]


@pytest.mark.parametrize("name", RECORDED)
def test_an_old_file_loads_with_the_penalty_it_had(name: str) -> None:
    model = keras.saving.load_model(FILES / f"{name}.keras")
    assert _penalties(model) == pytest.approx(RECORDED[name], rel=1e-6)
    # the control: another kernel has another penalty
    model.get_layer("second").kernel.assign(2.0 * model.get_layer("second").kernel)
    assert _penalties(model) != pytest.approx(RECORDED[name], rel=1e-2)


@pytest.mark.parametrize("name", RECORDED)
def test_the_saved_keys_are_still_the_same(name: str) -> None:
    old = keras.saving.load_model(FILES / f"{name}.keras")
    new = _residual_network()
    new.set_weights([np.array(weight) for weight in old.get_weights()])
    kss.attach(new, REGULARIZERS[name](), coupled=name.startswith("coupled"))
    assert _penalties(new) == pytest.approx(RECORDED[name], rel=1e-6)
    configs = [r.get_config() for r in regularizers_of(new).values()]
    assert configs == [r.get_config() for r in regularizers_of(old).values()]
    # JSON makes lists of tuples.
    assert json.loads(json.dumps([config["links"] for config in configs])) == LINKS[name]
