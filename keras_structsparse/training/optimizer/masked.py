"""Masked: an optimizer that keeps removed groups at zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Array, Tensor
from keras_structsparse.training.grouped_kernels import GroupedKernel


class Masked(keras.optimizers.Optimizer):
    """An optimizer that multiplies weights by masks after every step of another optimizer.

    Args:
        optimizer: The optimizer to wrap.
        kernels: The kernels that have masks, with their gammas; all masks are ones at the start.
        name: Name of the optimizer.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        kernels: Mapping[str, GroupedKernel],
        name: str = "masked",
    ) -> None:
        super().__init__(learning_rate=0.0, name=name)
        # Not the variables: Keras would take those in a list for the optimizer's own.
        self.optimizer, self.kernels = optimizer, dict(kernels)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the masks.

        Args:
            variables: The trainable variables.
        """
        if self.built or not variables:
            return
        masked = [v for own in self.kernels.values() for v in own.variables]
        self._masks = {
            id(variable): self.add_variable(
                variable.shape, "ones", variable.dtype, name=f"mask_{number}"
            )
            for number, variable in enumerate(masked)
        }
        self.optimizer.build(variables)
        super().build(variables)

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables of this optimizer and of the wrapped one."""
        return [*super().variables, *self.optimizer.variables]

    def apply(
        self,
        grads: Sequence[Tensor],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """Take one step of the wrapped optimizer, then multiply by the masks.

        Args:
            grads: Gradients of the loss, one for each variable.
            trainable_variables: The variables; by default those that the optimizer was built with.
        """
        if not self.built and trainable_variables is not None:
            self.build(list(trainable_variables))
        variables = list(trainable_variables or _keras_compat.trained_variables(self))
        self.optimizer.apply(grads, variables)
        for variable in variables:
            if id(variable) in self._masks:
                variable.assign(
                    ops.convert_to_tensor(variable)
                    * ops.convert_to_tensor(self._masks[id(variable)])
                )

    def set_masks(self, masks: Mapping[int, Array]) -> None:
        """Set masks of ones and zeros.

        Args:
            masks: By ``id`` of the variable, arrays of its shape.
        """
        for key, mask in masks.items():
            self._masks[key].assign(mask)

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the wrapped optimizer."""
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.optimizer.learning_rate = learning_rate

    @property
    def iterations(self) -> Any:
        """The number of steps of the wrapped optimizer."""
        return self.optimizer.iterations

    def get_config(self) -> dict[str, Any]:
        """Refuse: the masks belong to one training, and no file holds this optimizer."""
        raise ValueError(
            "Masked: expected the model to be saved after the training that removes groups. "
            "Received: a request for the configuration of its optimizer"
        )
