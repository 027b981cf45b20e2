"""Carry the state of an optimizer over to a pruned model.

Every entry that surgery kept keeps its optimizer state: momenta, second moments, accumulated
gradients. So the next step changes it as it would have done before surgery. What surgery adds to a
bias or a carrier channel belongs to no other entry and leaves their state unchanged. New weights
start with the state of a new optimizer.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Mapping
from typing import Any

import keras

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Array
from keras_structsparse.regularizers.alpha import Alpha
from keras_structsparse.regularizers.attachment import regularizers_of
from keras_structsparse.surgery import Origin, origins
from keras_structsparse.training.optimizer.proximal import Proximal

Optimizer = Any

AVERAGE = _keras_compat.WEIGHT_AVERAGES
"""The slot that has to follow the weight itself: it differs from the weight as before surgery, and
is equal to a weight that is new."""

UNNAMED = r"^variable(_\d+)?$"
"""The names that Keras makes up."""

SETTING = "learning_rate"
"""Part of the optimizer's configuration, though it is a variable."""


def carry_optimizer(model: keras.Model, pruned: keras.Model) -> keras.Model:
    """Continue the training of a model in what :func:`keras_structsparse.prune` made of it.

    The optimizer of ``pruned`` gets the number of steps and the state of the optimizer of
    ``model``, cut as the weights were: the next step changes each kept entry by what it would have
    changed it before. A new weight starts with fresh state.

    Args:
        model: The compiled model; it is not changed. Both models may be loaded from files.
        pruned: What ``prune(model, ...)`` returned. If it is not compiled, it is compiled as
            ``model`` was. To continue with a penalty, attach a regularizer to it first: without
            one, the optimizer inside a :class:`~keras_structsparse.Proximal` is used alone. If it
            is compiled with an optimizer of the same type, that keeps its settings.

    Returns:
        ``pruned``, compiled.

    Raises:
        ModelError: ``model`` has no graph.
        ValueError: ``model`` is not compiled, ``pruned`` was not made from a model of these layers
            and weight shapes, or it has an optimizer of another type.

    Examples:
        >>> from keras_structsparse.surgery.plans import Plan
        >>> from keras_structsparse.surgery import prune
        >>> inputs = keras.Input((8, 8, 1))
        >>> x = keras.layers.Flatten()(keras.layers.Conv2D(3, 3, name="conv")(inputs))
        >>> model = keras.Model(inputs, keras.layers.Dense(2)(x))
        >>> model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
        >>> history = model.fit(keras.ops.ones((4, 8, 8, 1)), keras.ops.ones((4, 2)), verbose=0)
        >>> pruned = carry_optimizer(model, prune(model, Plan({"conv": (3, 0, 2)})))
        >>> int(pruned.optimizer.iterations), pruned.optimizer.momentum
        (1, 0.9)
    """
    found = origins(model, pruned)
    if not model.compiled or model.optimizer is None:
        raise ValueError(
            f"model: expected a compiled model. Received: '{model.name}', which is not"
        )
    carried = {id(w): origin for w, origin in zip(pruned.weights, found, strict=True) if origin}
    if not pruned.compiled:
        _compile_like(model, pruned)
        _exclude_alike(model, pruned, carried)
    _check_types(model.optimizer, pruned.optimizer)
    for trained in (model, pruned):
        if not trained.optimizer.built:
            trained.optimizer.build(trained.trainable_variables)
    old, new = _State(model), _State(pruned)
    for variable in pruned.trainable_variables:
        origin = carried.get(id(variable))
        source = variable if origin is None else model.weights[origin.weight]
        slots = old.slots.get(id(source), {})
        _fill(variable, source, origin, new.slots[id(variable)], slots)
    for name, variables in new.others.items():
        for variable, known in zip(variables, old.others.get(name, ()), strict=False):
            variable.assign(_array(known))  # JAX gives away what two variables share.
    return pruned


def forget(model: keras.Model, masks: Mapping[int, Array]) -> None:
    """Set the optimizer state of some entries to zero, as if they had never been changed.

    Args:
        model: A compiled model with a built optimizer.
        masks: By ``id`` of the weight an array that broadcasts to it: 0 for those entries, 1 for
            all others.
    """
    for key, slots in _State(model).slots.items():
        for slot in slots.values() if key in masks else ():
            slot.assign(_array(slot) * masks[key])


def _compile_like(model: keras.Model, pruned: keras.Model) -> None:
    settings = keras.saving.deserialize_keras_object(model.get_compile_config())
    serialized = _serialized(model.optimizer, penalized=bool(regularizers_of(pruned)))
    settings["optimizer"] = keras.saving.deserialize_keras_object(serialized)
    pruned.compile(**settings)


def _exclude_alike(model: keras.Model, pruned: keras.Model, carried: Mapping[int, Origin]) -> None:
    """Exclude from weight decay what was excluded before, since no configuration records it.

    If anything was excluded, weights that surgery added are excluded as well.
    """
    old, new = (_nested(each.optimizer)[-1] for each in (model, pruned))
    if not old.weight_decay:
        return
    decays = _keras_compat.uses_weight_decay
    spared = {id(v) for v in model.trainable_variables if not decays(old, v)}
    if spared:
        sources = {key: id(model.weights[origin.weight]) for key, origin in carried.items()}
        left = [v for v in pruned.trainable_variables if sources.get(id(v)) in {None, *spared}]
        new.exclude_from_weight_decay(var_list=left)


def _serialized(optimizer: Optimizer, penalized: bool) -> dict[str, Any]:
    """The configuration of an optimizer; without a penalty, of the one that `Proximal` wraps."""
    if isinstance(optimizer, Proximal) and not penalized:
        return dict(optimizer.get_config()["optimizer"])
    entry = keras.saving.serialize_keras_object(optimizer)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        entry["config"]["inner_optimizer"] = _serialized(optimizer.inner_optimizer, penalized)
    return dict(entry)


def _check_types(old: Optimizer, new: Optimizer) -> None:
    kinds = [type(_nested(optimizer)[-1]) for optimizer in (old, new)]
    if kinds[0] is not kinds[1]:
        raise ValueError(
            f"pruned: expected to be compiled with {kinds[0].__name__}, as the model is. "
            f"Received: {kinds[1].__name__}"
        )


def _fill(
    variable: keras.Variable,
    source: keras.Variable,
    origin: Origin | None,
    slots: Mapping[str, keras.Variable],
    known: Mapping[str, keras.Variable],
) -> None:
    """Set the slots of a new weight from those of the old weight, its source."""
    for name, slot in slots.items():
        shift = _array(variable) if name == AVERAGE else 0.0
        if origin is not None and name in known and known[name].shape == source.shape:
            of_source = _array(source) if name == AVERAGE else 0.0
            slot.assign(shift + origin.of(_array(known[name]) - of_source))
        elif name == AVERAGE:
            slot.assign(shift)


def _array(variable: keras.Variable) -> Array:
    return keras.ops.convert_to_numpy(variable)


class _State:
    """The variables of a model's optimizer.

    Attributes:
        slots: Those that belong to a weight, by its ``id`` and the optimizer's name for the slot.
        others: Step counts, loss scales and the like by name, the innermost optimizer's first.
    """

    def __init__(self, model: keras.Model) -> None:
        self.slots: dict[int, dict[str, keras.Variable]] = {
            id(weight): {} for weight in model.trainable_variables
        }
        for optimizer in _nested(model.optimizer):
            trained = _keras_compat.trained_variables(optimizer)
            for name, entries in _keras_compat.slots(optimizer).items():
                for weight, entry in zip(trained, entries, strict=True):
                    if entry is not None:
                        self.slots.setdefault(id(weight), {})[name] = entry
        mine = {id(slot) for own in self.slots.values() for slot in own.values()}
        self.others: dict[str, list[keras.Variable]] = collections.defaultdict(list)
        for variable in model.optimizer.variables[::-1]:
            name = re.sub(UNNAMED, "variable", variable.name)
            if id(variable) not in mine and name != SETTING and not isinstance(variable, Alpha):
                self.others[name].append(variable)


def _nested(optimizer: Optimizer) -> list[Optimizer]:
    """An optimizer and those that it wraps, the outermost first."""
    inner = getattr(optimizer, "inner_optimizer", getattr(optimizer, "optimizer", None))
    return [optimizer] if inner is None else [optimizer, *_nested(inner)]
