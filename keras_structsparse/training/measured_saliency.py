"""Measure on data what the loss would lose without groups of kernel entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Array, Tensor
from keras_structsparse._validation import positive_int
from keras_structsparse.errors import ModelError
from keras_structsparse.graph.functional_graph import functional
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.group_prices import JointKernels
from keras_structsparse.profiling.inner_layers import inner_layers
from keras_structsparse.regularizers.saliency import Saliency
from keras_structsparse.training.compensation import Compensation
from keras_structsparse.training.grouped_kernels import GroupedKernel, grouped_kernels
from keras_structsparse.training.mean_shifts import MeanShifts, Offset
from keras_structsparse.training.training_data import Data, TrainingData


def saliency(
    model: keras.Model,
    data: Data,
    loss: Any = None,
    *,
    groups: str = "half_ring",
    batches: int = 50,
    batch_size: int = 32,
) -> Saliency:
    """Measure what the loss of a network would lose without each nested group of its kernels.

    The network computes as in inference: normalisations use their moving statistics, and dropout
    is off. In training mode the statistics of a batch would hide the length of a kernel, and with
    it what its outer half-rings do. No weight is changed.

    Args:
        model: A functional or built Sequential model.
        data: Arrays (inputs, targets), a ``tf.data.Dataset`` or a ``keras.utils.PyDataset``.
        loss: The loss; by default that of the compiled model, with its loss weights.
        groups: "half_ring", "ring" or "kernel".
        batches: The largest number of batches that are measured.
        batch_size: Examples of a batch, for arrays.

    Returns:
        The saliency of all trained kernels that may be removed: not of those that compute outputs.

    Raises:
        ModelError: The model has no graph, or no kernels that can be removed.
        ValueError: There is no loss, or an argument is out of its range.

    Examples:
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 1)),
        ...     keras.layers.Conv2D(4, 3, name="conv"),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(1),
        ... ])
        >>> data = np.ones((32, 8, 8, 1)), np.ones((32, 1))
        >>> saliency(model, data, "mse").second["conv"].shape
        (3, 4)
    """
    weights = None
    if loss is None and getattr(model, "compiled", False):
        loss, weights = model.loss, model.get_compile_config().get("loss_weights")
    if loss is None:
        raise ValueError("loss: expected a loss, or a compiled model. Received: None")
    found = PrunableLayers.of(model)
    kernels = grouped_kernels(found, inner_layers(found), groups)
    if not kernels:
        raise ModelError(
            f"Model '{model.name}': expected trainable convolutions or dense layers before its "
            "last one. Received none"
        )
    measure = Measurement(model, kernels, {"loss": loss, "loss_weights": weights})
    train = TrainingData.of(data, positive_int("batch_size", batch_size))
    return measure.on(train, positive_int("batches", batches), batch_size, groups).saliency


@dataclass(frozen=True, eq=False)
class Measured:
    """What the loss of a network would lose.

    Attributes:
        saliency: Without each group.
        joint: Without all kernels that write one channel: second order (channels,).
    """

    saliency: Saliency
    joint: Array


class Measurement:
    """Measures the saliency of groups again and again while a network is trained.

    Args:
        model: The network.
        kernels: The kernels with their groups, by name of the layer.
        options: The arguments of ``compile``; those that say what the loss is are used.
        compensation: If given, it measures the same batches, and the saliency is what the loss
            loses when the mean of what a group computes is moved into the bias.
        joint: Kernels that write one channel together, which are measured together as well.
    """

    def __init__(
        self,
        model: keras.Model,
        kernels: Mapping[str, GroupedKernel],
        options: Mapping[str, Any],
        compensation: Compensation | None = None,
        joint: Sequence[JointKernels] = (),
    ) -> None:
        self.kernels, self.compensation = kernels, compensation
        offsets = {} if compensation is None else compensation.shifts.offsets
        self._recorder = _Recorder(kernels, offsets, joint)
        self._model = InferenceMode(model)
        given = ("loss", "loss_weights", "run_eagerly")
        loss = {name: options[name] for name in given if name in options}
        self._model.compile(optimizer=self._recorder, **loss)

    def on(
        self,
        data: TrainingData,
        batches: int,
        batch_size: int,
        groups: str,
        rng: np.random.Generator | None = None,
    ) -> Measured:
        """Measure on some batches.

        Args:
            data: The data.
            batches: The number of batches, at most those of an epoch.
            batch_size: Examples of a batch, for arrays.
            groups: The kind of groups that the kernels have.
            rng: Draws the batches; by default one that Keras' ``set_random_seed`` seeds.
        """
        examples, steps = 0, 0
        drawn = list(data.some_batches(batches, batch_size, rng))
        if self.compensation is not None:
            self.compensation.measure(drawn)
            self._recorder.take_off(self.compensation.shifts)
        for batch in drawn:
            self._model.train_on_batch(*batch)
            examples += len(keras.tree.flatten(batch[0])[0])
            steps += 1
        return self._recorder.taken(steps, examples / max(steps, 1), groups)


class InferenceMode(keras.Model):
    """A network that shares the layers of another one, and always computes as in inference."""

    def __init__(self, model: keras.Model) -> None:
        graph = functional(model)
        super().__init__(
            inputs=_keras_compat.input_structure(graph),
            outputs=_keras_compat.output_structure(graph),
            name="measured",
        )

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        """Compute the outputs as in inference."""
        return super().call(inputs, training=False, mask=mask)


class _Recorder(keras.optimizers.Optimizer):
    """An optimizer that changes no weight, and sums up what groups do to the loss."""

    def __init__(
        self,
        kernels: Mapping[str, GroupedKernel],
        offsets: Mapping[str, Offset],
        joint: Sequence[JointKernels],
    ) -> None:
        super().__init__(learning_rate=0.0, name="recorder")
        self.kernels, self.offsets, self.joint = kernels, offsets, joint
        self._members = _members(kernels, joint)
        self._shifts = {
            name: self.add_variable((len(own.groups), own.width), name=f"shift_{number}")
            for number, (name, own) in enumerate(kernels.items())
            if name in offsets
        }

    def take_off(self, shifts: MeanShifts) -> None:
        """From now on, take the means of groups off what they do to the loss."""
        for name, variable in self._shifts.items():
            variable.assign(shifts.of_groups(name, self.kernels[name]))

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        self._sums: dict[str, tuple[keras.Variable, keras.Variable]] = {}
        for number, (name, own) in enumerate(self.kernels.items()):
            shape = (len(own.groups), own.width)
            first = self.add_variable(shape, name=f"first_{number}")
            self._sums[name] = first, self.add_variable(shape, name=f"second_{number}")
        self._joint = self.add_variable((len(self.joint),), name="joint")
        super().build(variables)

    def apply(
        self,
        grads: Sequence[Tensor],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        if not self.built and trainable_variables is not None:
            self.build(list(trainable_variables))
        variables = list(trainable_variables or _keras_compat.trained_variables(self))
        found = {id(v): g for v, g in zip(variables, grads, strict=True) if g is not None}
        together: Any = ops.zeros((len(self.joint),))
        for name, own in self.kernels.items():
            if id(own.kernel) in found:
                change = own.change(found[id(own.kernel)])
                moved = self.offsets[name].gradient(found) if name in self.offsets else None
                if moved is not None:
                    change = change - ops.convert_to_tensor(self._shifts[name]) * moved
                first, second = self._sums[name]
                first.assign(ops.convert_to_tensor(first) + ops.abs(change))
                second.assign(ops.convert_to_tensor(second) + ops.square(change))
                if name in self._members:
                    places, numbers = self._members[name]
                    parts = ops.take(change[-1], numbers)
                    together = together + ops.segment_sum(parts, places, len(self.joint))
        self._joint.assign(ops.convert_to_tensor(self._joint) + ops.square(together))

    def taken(self, steps: int, examples: float, groups: str) -> Measured:
        """The saliency of the batches since the last call."""

        def mean(variable: keras.Variable) -> Array:
            value = np.array(ops.convert_to_numpy(variable), np.float64) / max(steps, 1)
            variable.assign(np.zeros(variable.shape))
            return value

        orders = {name: (mean(a), mean(b) * examples / 2) for name, (a, b) in self._sums.items()}
        first = {name: own for name, (own, _) in orders.items()}
        found = Saliency(first, {name: own for name, (_, own) in orders.items()}, groups)
        return Measured(found, mean(self._joint) * examples / 2)


def _members(
    kernels: Mapping[str, GroupedKernel], joint: Sequence[JointKernels]
) -> dict[str, tuple[Array, Array]]:
    """For each layer the joint groups with one of its kernels, and the numbers of these kernels."""
    found: dict[str, list[tuple[int, int]]] = {}
    for place, own in enumerate(joint):
        for name, number in own:
            found.setdefault(name, []).append((place, number))
    arrays = {name: np.array(pairs, np.int32).T for name, pairs in found.items()}
    return {name: (own[0], own[1]) for name, own in arrays.items() if name in kernels}
