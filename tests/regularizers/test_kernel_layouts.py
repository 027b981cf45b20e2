"""Kernels of transposed, depthwise and separable convolutions."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers_prox import Array, naive_norms, numpy, random_kernel
from keras import layers as L
from keras import optimizers as O

import keras_structsparse as kss

SHAPE = (3, 3, 4, 2)

PLAIN = {
    "transposed": lambda kernel: np.swapaxes(kernel, -1, -2),
    "depthwise": lambda kernel: kernel.reshape(3, 3, 1, 8),
}
"""The kernels of every output channel, as those of a convolution."""

every = pytest.mark.parametrize("layout", PLAIN)


def test_every_output_channel_reads_one_kernel() -> None:
    """What the layouts mean, read off the layers themselves."""
    image = np.random.default_rng(0).normal(size=(1, 3, 3, 4))
    layer = L.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, dtype="float64")
    outputs = numpy(layer(image))[0, 0, 0]
    kernels = PLAIN["depthwise"](numpy(layer.kernel))[:, :, 0]
    channels = np.repeat(image[0], 2, axis=-1)
    np.testing.assert_allclose(outputs, (channels * kernels).sum(axis=(0, 1)))
    layer = L.Conv2DTranspose(5, 3, use_bias=False, dtype="float64")
    pulse = np.ones((1, 1, 1, 4))
    outputs = numpy(layer(pulse))[0]
    kernels = PLAIN["transposed"](numpy(layer.kernel))
    np.testing.assert_allclose(outputs, kernels.sum(axis=2))


@every
@pytest.mark.parametrize(("norm", "power"), [("l2", 1), ("linf", 1), ("l2", 2)])
def test_penalty_step_and_subgradient_are_those_of_the_output_channels(
    layout: str, norm: str, power: int
) -> None:
    kernel = random_kernel(SHAPE, dead=0.2)
    options: dict[str, Any] = {"norm": norm, "power": power}
    own, plain = kss.KernelSize(0.1, layout=layout, **options), kss.KernelSize(0.1, **options)
    assert float(own(kernel)) == pytest.approx(float(plain(PLAIN[layout](kernel))), rel=1e-12)
    assert abs(float(own(kernel)) - float(plain(kernel))) > 1e-3, "the control"
    norms = naive_norms(PLAIN[layout](kernel), "half_ring", norm)
    np.testing.assert_allclose(numpy(own.group_norms(kernel)), norms, rtol=1e-12)
    for ours, theirs in (
        (own.prox(kernel, 0.5), plain.prox(PLAIN[layout](kernel), 0.5)),
        (own.subgradient(kernel), plain.subgradient(PLAIN[layout](kernel))),
    ):
        assert tuple(ours.shape) == SHAPE
        np.testing.assert_allclose(PLAIN[layout](numpy(ours)), numpy(theirs), atol=1e-12)


def stepped(kernel: Array, gradient: Array, inner: O.Optimizer, layout: str) -> Array:
    variable = keras.Variable(kernel, dtype="float64")
    variable.regularizer = kss.KernelSize(4.0, layout=layout)
    penalty = numpy(variable.regularizer.subgradient(kernel))
    optimizer = kss.Proximal(inner)
    for _ in range(2):
        optimizer.apply([keras.ops.convert_to_tensor(gradient + penalty)], [variable])
    return numpy(variable)


@every
@pytest.mark.parametrize("inner", [O.SGD, O.Adam])
def test_proximal_shrinks_the_kernels_of_output_channels(layout: str, inner: Any) -> None:
    kernel = random_kernel(SHAPE, dead=0.2)
    gradient = random_kernel(SHAPE, seed=1)
    ours = stepped(kernel, gradient, inner(0.2), layout)
    plain = stepped(PLAIN[layout](kernel), PLAIN[layout](gradient), inner(0.2), "plain")
    np.testing.assert_allclose(PLAIN[layout](ours), plain, atol=1e-6)
    assert (plain == 0).any()
    assert np.abs(ours - stepped(kernel, gradient, inner(0.2), "plain")).max() > 1e-2


def test_layers_keep_the_layout_in_their_configuration() -> None:
    depthwise = kss.KernelSize(0.25, layout="depthwise")
    separable = L.SeparableConv2D(
        4, 3, depthwise_regularizer=depthwise, pointwise_regularizer=kss.KernelCount(0.25)
    )
    copy = L.SeparableConv2D.from_config(separable.get_config())
    model = keras.Sequential([keras.Input((6, 6, 2)), copy])
    spatial, pointwise = (
        numpy(v.regularizer.group_norms(v)).shape for v in model.trainable_variables[:2]
    )
    assert spatial == (3, 2)
    assert pointwise == (1, 4)
    assert len(model.losses) == 2


def test_other_layouts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"layout: expected one of.*Received: 'sideways'"):
        kss.KernelSize(layout="sideways")
    model = keras.Sequential([keras.Input((6, 6, 2)), L.Conv2D(4, 3)])
    with pytest.raises(
        ValueError, match=r"layout: expected one of \('plain',\). Received: 'transp"
    ):
        kss.attach(model, kss.KernelSize(layout="transposed"))
