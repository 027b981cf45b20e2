"""Whether a rebuilt network computes the same in training mode, where that is defined.

Surgery is exact at inference: a removed channel is the constant that it is there. In training mode
a batch normalisation takes the statistics of the batch, by which that constant may become another
one, so masked and pruned network may differ and both be right. They must not differ where the
moving statistics are those of a batch, of any: those of a constant channel are the same in all
batches, so it is the same constant in both modes. So statistics are taken of one batch, the pruned
network is made with them, and both networks are compared on another batch. On the first batch both
modes of the masked network must agree: otherwise more acts than the statistics, and nothing is
compared. Random layers draw other numbers in both networks, so they are switched off where an
option does that.

A network is called with ``training=True``, and with ``training=None``, where the calls of its
layers decide. (``training=False`` overrides them: that is inference.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Array
from keras_structsparse.errors import StructSparseError
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.surgery.verification_copies import largest_difference, outputs_of

MODES = (True, None)
"""The values of ``training`` besides False."""

RANDOM_OPTIONS = ("rate", "stddev", "dropout", "recurrent_dropout")
"""The options of Keras' layers that are 0 where a layer draws no random numbers in training."""

STATISTICS = ("moving_mean", "moving_variance")


@dataclass(frozen=True)
class InMode:
    """What was found out in one mode.

    Attributes:
        what: The mode.
        error: The largest relative difference of the outputs; None if nothing was compared.
        reason: Why nothing was compared.
    """

    what: str
    error: float | None
    reason: str = ""


@dataclass(frozen=True)
class Networks:
    """How the networks that are compared are made.

    Attributes:
        mask: From a network to the masked one.
        rebuild: From a network to the one that is checked.
        views: From a network to those whose outputs are compared.
    """

    mask: Callable[[keras.Model], keras.Model]
    rebuild: Callable[[keras.Model], keras.Model]
    views: Callable[[keras.Model], list[keras.Model]]


def in_modes(
    double: keras.Model,
    reference: keras.Model,
    made: keras.Model,
    networks: Networks,
    batches: tuple[list[Array], list[Array]],
    tolerance: float,
) -> Iterator[InMode]:
    """Compare a masked network with a rebuilt one in the modes that are not inference.

    Args:
        double: The network, in float64.
        reference: The masked network; its statistics change.
        made: The rebuilt network; likewise.
        networks: How both are made.
        batches: Two batches of random values, each with one array per input.
        tolerance: The largest difference of networks that count as equal.

    Yields:
        The modes in which one of them computes something else than at inference.
    """
    for mode in MODES:
        what = f"training={mode}"
        try:
            differs = _differs(reference, batches[0], mode)
        except Exception as error:  # Keras and its backends raise anything
            yield InMode(what, None, f"{type(error).__name__} of the masked model")
            continue
        # The rebuilt network is called as it is, random layers included: it must not fail.
        if _differs(made, batches[0], mode) or differs:
            yield InMode(what, *_in_mode(double, networks, batches, mode, tolerance))


def _differs(network: keras.Model, inputs: list[Array], mode: bool | None) -> bool:
    """Whether a network computes something else in a mode than at inference."""
    return not _equal(*(outputs_of([network], inputs, each) for each in (False, mode)))


def _equal(first: list[Array], second: list[Array]) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second, strict=True))


def _in_mode(
    double: keras.Model,
    networks: Networks,
    batches: tuple[list[Array], list[Array]],
    mode: bool | None,
    tolerance: float,
) -> tuple[float | None, str]:
    """The error, or None and why nothing is compared."""
    if not _is_exact():
        return None, "the backend takes the statistics of a batch in float32"
    inputs, others = batches
    reference = networks.mask(double)
    if _changes_weights(reference, inputs, mode):
        return None, "layers change their weights in it"
    if _is_random(reference, inputs, mode):
        double = copy_model(double, _calm)
        reference = networks.mask(double)
    _take_statistics(reference, others, mode)
    if _is_random(reference, others, mode):
        return None, "the outputs of two calls differ"
    both = (outputs_of([reference], others, each) for each in (False, mode))
    if not largest_difference(*both) <= tolerance:
        return None, "layers act in it by more than the statistics of the batch"
    network = copy_model(double)
    _give_statistics(reference, network)
    try:
        made = networks.rebuild(network)
    except StructSparseError as error:
        return None, str(error)
    views = networks.views(reference), networks.views(made)
    expected, found = (outputs_of(each, inputs, mode) for each in views)
    if not all(np.isfinite(array).all() for array in expected):
        return None, "its outputs are not finite"
    worst = largest_difference(expected, found)
    if mode is None and not worst <= tolerance:
        first, second = map(_letting_others_train, (reference, made))
        if first and len(first) == len(second):
            return None, f"layer '{first[0]}' lets layers train that Keras calls after it"
    return worst, ""


def _letting_others_train(network: keras.Model) -> list[str]:
    """The calls that let layers train that Keras calls after them.

    In a model that is called without ``training``, a call with ``training=True`` of a layer whose
    default is True or False, as Dropout or Resizing, lets layers on other branches train as well
    (Keras 3.15). Which ones depends on the order and the nesting of the calls.
    """
    calls = functional_graph.read(network).calls
    return [
        call.name
        for call in calls
        if call.options.get("training") and call.training_default is not None
    ]


def _changes_weights(network: keras.Model, inputs: list[Array], mode: bool | None) -> bool:
    """Whether a call changes other weights than statistics, as that of SpectralNormalization."""
    weights = [weight for weight in network.weights if weight.name not in STATISTICS]
    before = [np.array(keras.ops.convert_to_numpy(weight)) for weight in weights]
    outputs_of([network], inputs, mode)
    return not _equal(before, list(map(keras.ops.convert_to_numpy, weights)))


def _is_random(network: keras.Model, inputs: list[Array], mode: bool | None) -> bool:
    return not _equal(*(outputs_of([network], inputs, mode) for _ in range(2)))


def _calm(layer: keras.Layer) -> dict[str, Any]:
    """The options of a layer of Keras with which it draws no random numbers."""
    if not type(layer).__module__.startswith("keras."):
        return {}
    own = layer.get_config()
    return {name: 0.0 for name in RANDOM_OPTIONS if isinstance(own.get(name), int | float)}


def _take_statistics(network: keras.Model, inputs: list[Array], mode: bool | None) -> None:
    """Let normalisations that take the statistics of a batch keep those of this one.

    Afterwards their moving statistics move no more.
    """
    inner = _keras_compat.inner_layers(network)
    norms = [x for x in inner if isinstance(x, keras.layers.BatchNormalization)]
    for momentum in (0.0, 1.0):
        for norm in norms:
            norm.momentum = momentum
        outputs_of([network], inputs, mode)


def _give_statistics(source: keras.Model, target: keras.Model) -> None:
    for old, new in zip(source.weights, target.weights, strict=True):
        if new.name in STATISTICS:
            new.assign(old)


def _is_exact() -> bool:
    """Whether a normalisation takes the statistics of a batch in float64."""
    values = np.array([[1.0], [1.0 + 1e-10]])
    norm = keras.layers.BatchNormalization(epsilon=1e-30, dtype="float64")
    found = keras.ops.convert_to_numpy(norm(values, training=True))
    return bool(np.allclose(np.ravel(found), [-1.0, 1.0], atol=1e-3))
