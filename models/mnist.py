"""MNIST and Fashion-MNIST, 28x28: a square bound of seven layers of sixteen 5x5 kernels.

The paper names square constraints for MNIST and leaves the numbers open. These are chosen so that
a sweep takes minutes on a few cores. Strides of 2 are at the first and fourth convolution: 28x28
images become maps of 14x14 and 7x7.
"""

from __future__ import annotations

from keras_structsparse.models.bases import Base
from keras_structsparse.models.entries import pair_of_entries

_SQUARE = Base(((16, 5),) * 7, (0, 3))

ENTRIES = {
    name: entry
    for data in ("mnist", "fashion-mnist")
    for name, entry in pair_of_entries(
        (f"{data}-residual", f"{data}-plain"),
        "square bound for 28x28 images",
        (28, 28, 1),
        10,
        _SQUARE,
    ).items()
}
