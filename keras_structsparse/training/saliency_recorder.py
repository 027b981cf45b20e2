"""An optimizer that changes no weight, and sums up what groups of kernel entries do to the loss.

To first order the loss changes by the sum of gradient times entries over a group. Where something
makes up for a removed group, less is lost:

- its mean is moved into a constant (`mean_shifts`), and is taken off;
- for whole kernels, layers that read the channel take over what they can predict of it
  (`channel_regressions`). Channels that predict each other may be removed together, and then
  neither is predicted. So the saliency is the geometric mean of both cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np
from keras import ops

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Array, Tensor
from keras_structsparse.graph.kernel_axes import kernel_of, plain_shape
from keras_structsparse.regularizers.saliency import Saliency
from keras_structsparse.training.channel_regressions import ChannelRegression, places_of_kernels
from keras_structsparse.training.compensation import Compensation
from keras_structsparse.training.grouped_kernels import GroupedKernel


class SaliencyRecorder(keras.optimizers.Optimizer):
    """Sums up the first-order changes of the loss, batch by batch.

    Args:
        kernels: The kernels with their groups, by name of the layer.
        compensation: What makes up for removed groups; None for nothing.
    """

    def __init__(
        self, kernels: Mapping[str, GroupedKernel], compensation: Compensation | None
    ) -> None:
        super().__init__(learning_rate=0.0, name="recorder")
        self.kernels, self.compensation = kernels, compensation
        self._shifts: dict[str, keras.Variable] = {}
        self._readers: dict[str, ChannelRegression] = {}
        self._places: dict[str, dict[str, Array]] = {}
        if compensation is not None:
            self._add_shifts(compensation)
            self._add_readers(compensation)

    def _add_shifts(self, compensation: Compensation) -> None:
        for number, (name, own) in enumerate(self.kernels.items()):
            if name in compensation.shifts.offsets:
                shape = len(own.groups), own.width
                self._shifts[name] = self.add_variable(shape, name=f"shift_{number}")

    def _add_readers(self, compensation: Compensation) -> None:
        reconstruction = compensation.reconstruction
        places = places_of_kernels(reconstruction.found, reconstruction.written, self.kernels)
        self._places = {name: own for name, own in places.items() if own}
        read = dict.fromkeys(reader for own in self._places.values() for reader in own)
        for number, name in enumerate(read):
            *spatial, channels, _ = plain_shape(reconstruction.layers[name])
            positions = int(np.prod(spatial))
            shapes = {
                "mean": (channels * positions,),
                "precision": (channels * positions, channels * positions),
                "blocks": (channels, positions, positions),
            }
            parts = {k: self.add_variable(s, name=f"{k}_{number}") for k, s in shapes.items()}
            self._readers[name] = ChannelRegression(**parts)

    def prepare(self) -> None:
        """From now on, count what makes up for groups as it was measured last."""
        assert self.compensation is not None
        for name, variable in self._shifts.items():
            variable.assign(self.compensation.shifts.of_groups(name, self.kernels[name]))
        moments = self.compensation.reconstruction.moments
        for name, variables in self._readers.items():
            found = ChannelRegression.of(moments[name], variables.blocks.shape[0])
            variables.mean.assign(found.mean)
            variables.precision.assign(found.precision)
            variables.blocks.assign(found.blocks)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Make the sums."""
        if self.built:
            return
        self._sums: dict[str, tuple[keras.Variable, ...]] = {}
        for number, (name, own) in enumerate(self.kernels.items()):
            shape = (len(own.groups), own.width)
            sums = [self.add_variable(shape, name=f"{k}_{number}") for k in ("first", "second")]
            predicted = self.add_variable(shape[1:], name=f"predicted_{number}")
            self._sums[name] = (*sums, predicted)
        super().build(variables)

    def apply(
        self,
        grads: Sequence[Tensor],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """Add what the groups do to the loss of a batch."""
        if not self.built and trainable_variables is not None:
            self.build(list(trainable_variables))
        variables = list(trainable_variables or _keras_compat.trained_variables(self))
        found = {id(v): g for v, g in zip(variables, grads, strict=True) if g is not None}
        channels = {name: self._changes_at(name, found) for name in self._readers}
        for name, own in self.kernels.items():
            if id(own.kernel) in found:
                change = own.change(found[id(own.kernel)])
                moved = self._moved(name, found)
                if moved is not None:
                    change = change - ops.convert_to_tensor(self._shifts[name]) * moved
                first, second, predicted = self._sums[name]
                first.assign(ops.convert_to_tensor(first) + ops.abs(change))
                second.assign(ops.convert_to_tensor(second) + ops.square(change))
                parts = [ops.matmul(channels[r], m) for r, m in self._places.get(name, {}).items()]
                if parts:
                    predicted.assign(ops.convert_to_tensor(predicted) + ops.square(sum(parts)))

    def _moved(self, name: str, gradients: Mapping[int, Tensor]) -> Tensor | None:
        """The gradient with respect to the constants that take means up."""
        if name not in self._shifts:
            return None
        assert self.compensation is not None
        return self.compensation.shifts.offsets[name].gradient(gradients)

    def _changes_at(self, name: str, gradients: Mapping[int, Tensor]) -> Tensor:
        """What the loss loses at a layer without each channel that it reads, (channels,)."""
        assert self.compensation is not None
        reconstruction = self.compensation.reconstruction
        kernel = kernel_of(reconstruction.layers[name])
        matrix = self._readers[name].mean.shape[0], kernel.shape[-1]
        if id(kernel) not in gradients:
            return ops.zeros(self._readers[name].blocks.shape[:1])
        gradient = ops.reshape(ops.cast(gradients[id(kernel)], "float32"), matrix)
        constant = reconstruction.offsets[name].gradient(gradients)
        if constant is None:
            constant = ops.zeros(matrix[1:])
        values = ops.reshape(ops.cast(ops.convert_to_tensor(kernel), "float32"), matrix)
        return self._readers[name].changes(values, gradient, ops.cast(constant, "float32"))

    def taken(self, steps: int, examples: float, groups: str) -> Saliency:
        """The saliency of the batches since the last call.

        Args:
            steps: The number of batches.
            examples: Examples of a batch.
            groups: The kind of groups that the kernels have.
        """

        def mean(variable: keras.Variable) -> Array:
            value = np.array(ops.convert_to_numpy(variable), np.float64) / max(steps, 1)
            variable.assign(np.zeros(variable.shape))
            return value

        first, second = {}, {}
        for name, sums in self._sums.items():
            first[name], squares, predicted = map(mean, sums)
            maps = self._places.get(name, {}).values()
            read = sum((own.any(axis=0) for own in maps), np.zeros(len(predicted), bool))
            squares[-1] = np.where(read, np.sqrt(squares[-1] * predicted), squares[-1])
            second[name] = squares * examples / 2
        return Saliency(first, second, groups)
