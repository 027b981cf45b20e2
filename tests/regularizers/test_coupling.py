"""What regularizers know of each other: as configurations, and once variables are bound."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers_coupled import joint_links, partial_links, reading_links, values
from helpers_prox import numpy

from keras_structsparse.regularizers import KernelSize
from keras_structsparse.regularizers.coupling import (
    ChannelGroup,
    CouplingSpec,
    Writer,
    joint_norms,
    joint_weight,
)


@pytest.mark.parametrize("make", [joint_links, partial_links, reading_links])
def test_links_survive_a_configuration(make: Any) -> None:
    for links in make().values():
        regularizer = KernelSize(links=links.to_config())
        serialized = keras.regularizers.serialize(regularizer)
        again = keras.regularizers.deserialize(serialized)
        assert again.links == regularizer.links == links
    assert CouplingSpec.from_config({**links.to_config(), "constant": 7.5}) != links


def test_paths_are_those_of_kernels_and_scales() -> None:
    regularizer = KernelSize().bound(scale="d/gamma", links=reading_links()["c"])
    assert regularizer.paths == {"a", "a/gamma", "b", "d/gamma"}
    assert regularizer.joined_kernels == set(), "what is only read may be frozen"
    joined = KernelSize().bound(links=partial_links()["c"])
    assert joined.paths == {"a", "a/gamma", "c"}
    assert joined.joined_kernels == {"a", "c"}


def test_binding_takes_what_is_needed_and_keeps_what_was_there() -> None:
    regularizer = KernelSize().bound(links=partial_links()["c"])
    given = values(0)
    regularizer.bind({"a": given["a"], "other": given["b"]})
    assert regularizer.unbound == {"a/gamma", "c"}
    regularizer.bind({path: given[path] for path in ("a/gamma", "c")})
    assert regularizer.unbound == set()
    norms = numpy(regularizer.whole_norms(Writer("a", "a/gamma"), "l2"))
    np.testing.assert_allclose(norms, np.abs(given["a/gamma"]))
    assert KernelSize().bound(links=partial_links()["c"]).unbound == {"a", "a/gamma", "c"}


def test_a_stream_counts_channels_that_any_layer_writes() -> None:
    lengths = {"a": [9.0, 0.0, 3.0, 0.0], "b": [0.0, 4.0, 0.0]}
    norms = {path: keras.ops.convert_to_tensor(x, "float32") for path, x in lengths.items()}
    stream = ChannelGroup((Writer("a", first=1), Writer("b")), 3, 1.0)
    np.testing.assert_array_equal(numpy(stream.norms(lambda w: norms[w.kernel])), [0, 5, 0])
    weights = keras.ops.convert_to_tensor([1.0, 2.0, 3.0])
    slopes = [numpy(p) for p in stream.slopes(lambda w: norms[w.kernel], weights)]
    np.testing.assert_allclose(slopes, [[0, 1.2, 0], [0, 1.6, 0]], rtol=1e-6)


def test_equal_weights_and_norms_make_a_joint_weight_of_the_root_of_their_number() -> None:
    assert joint_weight([1.0] * 9) == 3.0
    total = float(joint_norms([keras.ops.convert_to_tensor(2.0)] * 9)) * joint_weight([1.0] * 9)
    assert total == pytest.approx(9 * 2.0)
