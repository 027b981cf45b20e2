"""Find the convolutions whose training is not safe with oneDNN, and warn of them.

TensorFlow and PyTorch use oneDNN on x86 CPUs. Its gradient of the kernel of a strided 1x1
convolution writes out of bounds if fewer channels are read than a register holds (oneDNN issue
6035; fewer than 16 with AVX-512): the process crashes, or the numbers are wrong. The same is true
of a transposed convolution that computes so few channels, whose kernel has them on the same axis.
Small batches often survive; the forward pass and layers that are not trained are safe.
"""

from __future__ import annotations

import os
import platform
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence

import keras

from keras_structsparse import _keras_compat

REGISTER = 16
"""Number of float32 values in the largest register."""

LAYERS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
)
"""The layers whose gradient is computed by the faulty code. That of Conv3D is not."""

PROCESSORS = ("x86_64", "amd64", "i386", "i686")

SWITCHES: Mapping[str, str] = {
    "tensorflow": "set the environment variable TF_ENABLE_ONEDNN_OPTS=0 before Python starts",
    "torch": "train inside of `with torch.backends.mkldnn.flags(enabled=False)`",
}
"""How oneDNN is switched off, by backend."""


def overflows(kernel: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the gradient of a kernel may be written out of bounds.

    Args:
        kernel: Shape of the kernel (*spatial, in, out), or (*spatial, out, in) of a transposed one.
        strides: Strides of the convolution, one per spatial axis.

    Examples:
        >>> overflows((1, 1, 11, 16), (2, 2)), overflows((1, 1, 16, 11), (2, 2))
        (True, False)
    """
    *sizes, inputs, _ = kernel
    return max(sizes) == 1 < max(strides) and inputs < REGISTER and len(sizes) <= 2


def overflowing(model: keras.Layer) -> list[str]:
    """Names of the trainable layers of a model whose gradient may be written out of bounds.

    Args:
        model: Any built model.

    Examples:
        >>> layers = [keras.layers.Conv2D(8, 1, strides=s, name=f"stride{s}") for s in (1, 2)]
        >>> overflowing(keras.Sequential([keras.Input((8, 8, 3)), *layers]))
        ['stride2']
    """
    return [
        layer.name
        for layer in _keras_compat.inner_layers(model)
        if isinstance(layer, LAYERS)
        and layer.built
        and layer.trainable
        and overflows(layer.kernel.shape, layer.strides)
    ]


_CHECKED = weakref.WeakSet[keras.Layer]()
"""The models whose layers have been looked at, so that nothing is said twice."""


def warn_in_training(model: keras.Layer) -> None:
    """Warn as :func:`warn_of_overflows` does, if that was never called for this model.

    Args:
        model: A model that trains itself.
    """
    if model not in _CHECKED:
        warn_of_overflows(model)


def warn_of_overflows(model: keras.Layer) -> None:
    """Warn of layers whose training may crash here, since a native crash gives no reason.

    The warning points at the caller of the function that calls this.

    Args:
        model: The model, before it is trained.
    """
    _CHECKED.add(model)
    names = overflowing(model)
    backend = keras.backend.backend()
    if not names or platform.machine().lower() not in PROCESSORS or not _USED[backend]():
        return
    named = ", ".join(f"'{name}'" for name in names)
    warnings.warn(
        f"{named}: strided 1x1 convolutions over fewer than {REGISTER} channels. On this CPU a "
        "fault of oneDNN (its issue 6035) may crash their training without a message, or make "
        f"their gradients wrong: {SWITCHES[backend]}, or put AveragePooling2D(1, strides) in front "
        "of a convolution without strides, which computes the same if it is not transposed",
        stacklevel=3,
    )


def _tensorflow_uses_it() -> bool:
    import tensorflow as tf

    # TensorFlow reads the variable like this, when it is imported.
    off = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1").lower() in ("0", "false")
    return not off and not tf.config.list_physical_devices("GPU")


def _torch_uses_it() -> bool:
    import torch

    return bool(torch.backends.mkldnn.is_available()) and not torch.cuda.is_available()


_USED: Mapping[str, Callable[[], bool]] = {
    "tensorflow": _tensorflow_uses_it,
    "torch": _torch_uses_it,
    "jax": lambda: False,
    "openvino": lambda: False,
    "numpy": lambda: False,
}
"""Whether a backend computes convolutions with oneDNN here."""
