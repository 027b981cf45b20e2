"""Choose thresholds for a trained network, on a validation split."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_structsparse._typing import Array
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.surgery.plans import Plan, masks, plan
from keras_structsparse.training.fit import accuracy


def masked_accuracy(model: keras.Model, chosen: Plan, data: tuple[Array, Array]) -> float:
    """The accuracy that a network has right after surgery: without surgery, by masking.

    Args:
        model: A classifier; it has its own weights again afterwards.
        chosen: The plan.
        data: Inputs and labels.

    Returns:
        A number in [0, 1].
    """
    weights = model.get_weights()
    found = PrunableLayers.of(model)
    changes = masks(found, chosen)
    try:
        for call in found.graph.layers():
            for name, value in changes.get(id(call.operation), {}).items():
                getattr(call.operation, name).assign(value)
        return accuracy(model, data)
    finally:
        model.set_weights(weights)


def largest_threshold(
    model: keras.Model, taus: Sequence[float], validation: tuple[Array, Array], max_drop: float
) -> tuple[float, Plan, float]:
    """The largest threshold that costs little accuracy at surgery.

    Args:
        model: A trained classifier.
        taus: Thresholds to try, in increasing order.
        validation: Inputs and labels.
        max_drop: How much accuracy on the validation split the threshold may cost.

    Returns:
        The threshold, its plan and the masked network's accuracy on the validation split; those
        of the smallest threshold if all cost more.
    """
    least = accuracy(model, validation) - max_drop
    tried = [
        (tau, chosen := plan(model, tau), masked_accuracy(model, chosen, validation))
        for tau in taus
    ]
    good = [entry for entry in tried if entry[2] >= least]
    return good[-1] if good else tried[0]
