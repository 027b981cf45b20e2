"""A figure of the kernels of a dense network and of a pruned one of the same base."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.export.formats import load_model
from keras_structsparse.graph.kernel_axes import plain_kernel
from keras_structsparse.plots import strips_figure
from keras_structsparse.surgery import provenance
from keras_structsparse.sweeps.report.figures import Drawing
from keras_structsparse.sweeps.run_summary import Contents


def kernel_drawings(contents: Contents) -> Iterator[Drawing]:
    """Draw the kernels of the dense network and of one in the middle of the frontier.

    Args:
        contents: The content of a run.

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
        "trained from the same start. Removed kernels leave no gap; those of a layer that was "
        "split are in the order of size. An empty one is kept for the constant that it gives."
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
        name: The layer of the base; surgery may have split it, or removed it. In a network that a
            version without a record of surgery made, the parts of a split layer are not found.

    Returns:
        For every kernel (height, width); none if the layer has no such kernels.
    """
    found = provenance.from_base(model)
    layers = [x for x in model.layers if len(getattr(x, "kernel", np.empty(0)).shape) == 4]
    own = [x for x in layers if (found.layers.get(x.name) if found else x.name) == name]
    kernels = [plain_kernel(layer) for layer in own]
    norms = [np.sqrt(np.square(kernel).sum(axis=-2)) for kernel in kernels]
    return [each[..., j] for each in norms for j in range(each.shape[-1])]
