"""Penalties on groups of kernel entries, their proximal operators, and how models get them."""

from keras_structsparse.regularizers.base import GroupSparsityRegularizer
from keras_structsparse.regularizers.kernel_count import KernelCount
from keras_structsparse.regularizers.kernel_size import KernelSize
from keras_structsparse.regularizers.multiply_adds import MultiplyAdds

__all__ = ["GroupSparsityRegularizer", "KernelCount", "KernelSize", "MultiplyAdds"]
