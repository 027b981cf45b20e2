"""scikit-learn's handwritten digits, 8x8: the square bound of the quickstart.

One stride, at the fourth convolution: 8x8 images leave room for no more.
"""

from __future__ import annotations

from keras_structsparse.models.bases import Base
from keras_structsparse.models.entries import pair_of_entries

ENTRIES = pair_of_entries(
    ("digits-residual", "digits-plain"),
    "square bound for 8x8 images",
    (8, 8, 1),
    10,
    Base(((16, 5),) * 7, (3,)),
)
