"""Measure on data what the loss would lose without groups of kernel entries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_structsparse import _keras_compat
from keras_structsparse._validation import positive_int
from keras_structsparse.errors import ModelError
from keras_structsparse.graph.functional_graph import functional
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.inner_layers import inner_layers
from keras_structsparse.regularizers.saliency import Saliency
from keras_structsparse.training.compensation import Compensation
from keras_structsparse.training.grouped_kernels import GroupedKernel, grouped_kernels
from keras_structsparse.training.saliency_recorder import SaliencyRecorder
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
    return measure.on(train, positive_int("batches", batches), batch_size, groups)


class Measurement:
    """Measures the saliency of groups again and again while a network is trained.

    Args:
        model: The network.
        kernels: The kernels with their groups, by name of the layer.
        options: The arguments of ``compile``; those that say what the loss is are used.
        compensation: If given, it measures the same batches, and the saliency is what the loss
            loses although something makes up for a group; see `saliency_recorder`.
    """

    def __init__(
        self,
        model: keras.Model,
        kernels: Mapping[str, GroupedKernel],
        options: Mapping[str, Any],
        compensation: Compensation | None = None,
    ) -> None:
        self.kernels, self.compensation = kernels, compensation
        self._recorder = SaliencyRecorder(kernels, compensation)
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
    ) -> Saliency:
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
            self._recorder.prepare()
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
