"""Train a network on its labels and on the outputs of another one, its teacher.

Keras' own ``Distiller`` leaves out sample and class weights, loss weights, and what layers add to
the loss. So only its loss classes are used here; the loss of the data is that of Keras' trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Tensor
from keras_structsparse.graph.functional_graph import functional

TEMPERATURE = 2.0
"""Divides the logits of both networks: classes that are not the most probable one count more."""

CATEGORICAL = ("categorical_crossentropy", "sparse_categorical_crossentropy")


class SoftTargets(keras.distillation.DistillationLoss):
    """The divergence of class probabilities from those of the teacher, at a temperature.

    Args:
        temperature: Divides the logits; the loss is multiplied by its square (Hinton et al. 2015).
        from_logits: Whether the outputs are logits; otherwise they are probabilities.
    """

    def __init__(self, temperature: float = TEMPERATURE, from_logits: bool = False) -> None:
        self.temperature, self.from_logits = temperature, from_logits

    def compute_loss(self, teacher_outputs: Tensor, student_outputs: Tensor, **_: Any) -> Tensor:
        """Compute the mean divergence over all predictions.

        Args:
            teacher_outputs: Tensor (examples, ..., classes).
            student_outputs: Likewise.

        Returns:
            A scalar.
        """
        teacher, student = (self._soft(x) for x in (teacher_outputs, student_outputs))
        divergence = ops.sum(ops.exp(teacher) * (teacher - student), axis=-1)
        return self.temperature**2 * ops.mean(divergence)

    def _soft(self, outputs: Tensor) -> Tensor:
        """The logarithms of the probabilities at the temperature."""
        outputs = ops.cast(outputs, "float32")
        if not self.from_logits:
            outputs = ops.log(ops.clip(outputs, keras.config.epsilon(), 1.0))
        return ops.log_softmax(outputs / self.temperature, axis=-1)


class SameLoss(keras.distillation.DistillationLoss):
    """The loss of the data, with the outputs of the teacher as targets.

    Args:
        loss: The loss, a function of targets and outputs.
        targets: Makes targets of outputs: of logits, probabilities.
    """

    def __init__(self, loss: Any, targets: Callable[[Tensor], Tensor] | None = None) -> None:
        self.loss, self.targets = loss, targets

    def compute_loss(self, teacher_outputs: Tensor, student_outputs: Tensor, **_: Any) -> Tensor:
        """Compute the mean loss.

        Args:
            teacher_outputs: Tensor (examples, ...).
            student_outputs: Likewise.

        Returns:
            A scalar.
        """
        targets = ops.cast(teacher_outputs, "float32")
        if self.targets is not None:
            targets = self.targets(targets)
        return ops.mean(self.loss(targets, student_outputs))


def distillation_loss(loss: Any) -> keras.distillation.DistillationLoss:
    """What compares an output with that of the teacher.

    Args:
        loss: The loss that a model was compiled with for this output: a name, a function or an
            object.

    Returns:
        For the cross-entropies of classes the divergence at a temperature, for others the loss
        itself.

    Examples:
        >>> type(distillation_loss("sparse_categorical_crossentropy")).__name__
        'SoftTargets'
        >>> type(distillation_loss("mse")).__name__
        'SameLoss'
    """
    found = keras.losses.get(loss) if isinstance(loss, str | Mapping) else loss
    name = str(getattr(found, "name", None) or getattr(found, "__name__", ""))
    classes = keras.losses.CategoricalCrossentropy, keras.losses.SparseCategoricalCrossentropy
    if isinstance(found, classes):
        return SoftTargets(from_logits=bool(found.get_config().get("from_logits", False)))
    if name in CATEGORICAL:
        return SoftTargets()
    return SameLoss(found, _probabilities(found))


def _probabilities(loss: Any) -> Callable[[Tensor], Tensor] | None:
    """What turns the outputs that a loss takes as logits into the targets that it takes."""
    config: Mapping[str, Any] = loss.get_config() if hasattr(loss, "get_config") else {}
    if not config.get("from_logits", False):
        return None
    binary = keras.losses.BinaryCrossentropy, keras.losses.BinaryFocalCrossentropy
    return ops.sigmoid if isinstance(loss, binary) else ops.softmax


class Distilling(keras.Model):
    """A network that shares its layers with another one and is trained with a teacher as well.

    The loss in training is ``(1 - weight) * data + weight * distillation`` plus what layers and
    regularizers add. Both parts have the loss weights of the outputs. In evaluation it is the loss
    that the network is compiled with.

    Args:
        student: The network whose weights are trained. It need not be compiled.
        teacher: A model of the same inputs and outputs; it is not trained.
        weight: The weight of the distillation, in [0, 1].
    """

    def __init__(self, student: keras.Model, teacher: keras.Model, weight: float) -> None:
        graph = functional(student)
        super().__init__(
            inputs=_keras_compat.input_structure(graph),
            outputs=_keras_compat.output_structure(graph),
            name=student.name,
        )
        self.weight = weight
        teacher.trainable = False
        self.teacher = teacher

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, loss_weights: Any = None, **options: Any
    ) -> None:
        """Compile as every model; the loss of an output is that of its distillation too.

        Args:
            optimizer: As for ``keras.Model.compile``.
            loss: Likewise.
            loss_weights: Likewise.
            **options: Likewise.
        """
        super().compile(optimizer=optimizer, loss=loss, loss_weights=loss_weights, **options)
        names = _names(self)
        terms = [None if x is None else distillation_loss(x) for x in _of_outputs(loss, names)]
        weights = [1.0 if x is None else float(x) for x in _of_outputs(loss_weights, names)]
        self.terms = tuple(zip(terms, weights, strict=True))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the last step; the trainer of torch calls it.

        Keras lists parameters by path there, and those of the teacher have the same paths: torch
        would keep the gradients of the student and sum them up.

        Args:
            set_to_none: As for ``torch.nn.Module.zero_grad``; always so.
        """
        for variable in self.trainable_variables:
            variable.value.grad = None

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """Compute the loss of the data and the distance from the teacher.

        Args:
            x: As for ``keras.Model.compute_loss``.
            y: Likewise.
            y_pred: Likewise.
            sample_weight: Likewise; the distillation does not need labels, and has no weights.
            training: Likewise.

        Returns:
            A scalar.
        """
        whole = super().compute_loss(x, y, y_pred, sample_weight, training)
        if not training or self.weight == 0:
            return whole
        added = sum(self.losses, start=ops.zeros_like(whole))
        taught = keras.tree.flatten(self.teacher(x, training=False))
        outputs = keras.tree.flatten(y_pred)
        distilled = [
            weight * term.compute_loss(ops.stop_gradient(given), own)
            for (term, weight), given, own in zip(self.terms, taught, outputs, strict=True)
            if term is not None
        ]
        distance = sum(distilled, start=ops.zeros_like(whole))
        return (1.0 - self.weight) * (whole - added) + added + self.weight * distance


def _names(model: keras.Model) -> list[str]:
    """The names of the outputs in the order of ``keras.tree.flatten``."""
    structure = _keras_compat.output_structure(model)
    if isinstance(structure, Mapping):
        return [str(name) for name in keras.tree.flatten({name: name for name in structure})]
    return list(model.output_names)


def _of_outputs(given: Any, names: Sequence[str]) -> list[Any]:
    """The losses, or their weights, of each output; None for outputs without one."""
    if isinstance(given, Mapping) and "class_name" not in given:
        return [given.get(name) for name in names]
    if isinstance(given, Sequence) and not isinstance(given, str):
        return list(given)
    return [given] * len(names)
