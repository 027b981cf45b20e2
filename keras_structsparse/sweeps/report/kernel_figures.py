"""The kernels of a dense network and of one that is left of the same base, as a figure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.export.formats import load_model
from keras_structsparse.plots import strips_figure
from keras_structsparse.sweeps.report.drawing import Drawing
from keras_structsparse.sweeps.run_summary import Contents


def kernel_drawings(contents: Contents) -> Iterator[Drawing]:
    """Draw the kernels of the dense network and of one in the middle of the frontier.

    Args:
        contents: What a run holds.

    Yields:
        One figure; none where no layer of the base has kernels of two or more spatial axes.

    Raises:
        ImportError: matplotlib is not installed.
    """
    chosen, dense = contents.middle, contents.dense[0]
    before, after = (load_model(found.model) for found in (dense, chosen))
    layers = {
        name: (kernels, shades(after, name))
        for name in contents.base
        if (kernels := shades(before, name)) and max(kernels[0].shape) > 1
    }
    if not layers:
        return
    point = chosen.point
    caption = (
        "Norms over the input channels of the kernels of the dense network, and of one on the "
        f"frontier (alpha {point.alpha:g}, tau {point.tau:g}, seed {chosen.trial.seed}), which was "
        "trained from the same start. Kernels that have gone leave no gap; those of a layer that "
        "is split stand by size. An empty one stays for the constant that it gives."
    )
    rows = [
        {"layer": name, "network": network, "kernel": index, "size": max(own.shape)}
        | {"norm": float(np.linalg.norm(own))}
        for name, both in layers.items()
        for network, kernels in zip(("dense", "pruned"), both, strict=True)
        for index, own in enumerate(kernels)
    ]
    figure = strips_figure(layers, ("dense", "pruned"), "Kernels before and after")
    yield Drawing("kernels", figure, caption, rows)


def shades(model: keras.Model, name: str) -> list[Array]:
    """The norms over the input channels of a layer's kernels, of two spatial axes.

    Args:
        model: A network, before surgery or after.
        name: The layer of the base; surgery may have split it, or removed it.

    Returns:
        For every kernel (height, width); none where there are no such kernels.
    """
    parts = re.compile(rf"{re.escape(name)}(_part_\d+_*)?")
    kernels: Mapping[str, Array] = {
        layer.name: keras.ops.convert_to_numpy(layer.kernel)
        for layer in model.layers
        if parts.fullmatch(layer.name) and len(getattr(layer, "kernel", np.empty(0)).shape) == 4
    }
    norms = [np.sqrt(np.square(kernel).sum(axis=-2)) for kernel in kernels.values()]
    return [each[..., j] for each in norms for j in range(each.shape[-1])]
