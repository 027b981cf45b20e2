"""The state of an optimizer, moved along with the weights that surgery moved.

Every entry that is left keeps what the optimizer knows of it: momenta, second moments, gathered
gradients. So the next step moves it as it would have moved before surgery. What surgery adds to a
bias or to a carrier belongs to no other entry, and leaves their state as it is; weights that are
new start with the state of a new optimizer.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import keras

from keras_structsparse._typing import Array
from keras_structsparse.regularizers.alpha import Alpha
from keras_structsparse.regularizers.attachment import regularizers_of
from keras_structsparse.surgery import Origin, origins
from keras_structsparse.training.optimizer.proximal import Proximal

Optimizer = Any

AVERAGE = "average"
"""What Keras calls the moving average of a weight. It has to follow the weight itself: with what
the weight's removed neighbours left added, and starting at the weight where that is new."""

UNNAMED = r"^variable(_\d+)?$"
"""The names that Keras makes up."""

SETTING = "learning_rate"
"""Part of the optimizer's configuration, though it is a variable."""


def carry_optimizer(model: keras.Model, pruned: keras.Model) -> keras.Model:
    """Let the training of a model go on in what :func:`keras_structsparse.prune` made of it.

    The optimizer of ``pruned`` gets the number of steps and the state that the optimizer of
    ``model`` has, cut as the weights were: the next step moves the weights that are left by what
    it would have moved them before. A weight that is new starts with fresh state.

    Args:
        model: The compiled model; it is not changed.
        pruned: What ``prune(model, ...)`` returned, in this process. Unless it is compiled, it
            is compiled as ``model`` was. To go on with a penalty, attach a regularizer to it
            first: without one, a :class:`~keras_structsparse.Proximal` is left out, and the
            optimizer inside goes on alone. If it is compiled, with an optimizer of the same type,
            that keeps its settings.

    Returns:
        ``pruned``, compiled.

    Raises:
        ValueError: ``model`` is not compiled, ``pruned`` was not made from it in this process, or
            has an optimizer of another type.

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
    """Set the state that an optimizer has of some entries to zero, as if they had never moved.

    Args:
        model: A compiled model with a built optimizer.
        masks: By ``id`` of the weight an array that broadcasts to it, 0 for those entries and 1 for
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
    """Leave out of weight decay what was left out before: no configuration says so.

    So is what surgery has added, where anything is left out.
    """
    old, new = (_innermost(each.optimizer) for each in (model, pruned))
    if not old.weight_decay:
        return
    spared = {id(v) for v in model.trainable_variables if not old._use_weight_decay(v)}
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
    kinds = [type(_innermost(optimizer)) for optimizer in (old, new)]
    if kinds[0] is not kinds[1]:
        raise ValueError(
            f"pruned: expected to be compiled with {kinds[0].__name__}, as the model is. "
            f"Received: {kinds[1].__name__}"
        )


def _innermost(optimizer: Optimizer) -> Optimizer:
    inner = getattr(optimizer, "inner_optimizer", getattr(optimizer, "optimizer", None))
    return optimizer if inner is None else _innermost(inner)


def _fill(
    variable: keras.Variable,
    source: keras.Variable,
    origin: Origin | None,
    slots: Mapping[str, keras.Variable],
    known: Mapping[str, keras.Variable],
) -> None:
    """Give the slots of a new weight what is known of the old one, its source."""
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
        slots: Those that belong to a weight, by its ``id`` and their name.
        others: Step counts, loss scales and the like by name, the innermost optimizer's first.
    """

    def __init__(self, model: keras.Model) -> None:
        weights = collections.defaultdict(list)
        for weight in model.trainable_variables:
            weights[weight.path.replace("/", "_")].append(weight)
        self.slots: dict[int, dict[str, keras.Variable]] = {
            id(weight): {} for weight in model.trainable_variables
        }
        self.others: dict[str, list[keras.Variable]] = {}
        for name, variables in _by_name(model.optimizer.variables).items():
            path, kind = _split(name, weights)
            if not path and name != SETTING:
                self.others[name] = [v for v in variables[::-1] if not isinstance(v, Alpha)]
            # Weights of one path have their slots in the same order.
            for weight, slot in zip(weights.get(path, ()), variables, strict=False):
                self.slots[id(weight)][kind] = slot


def _by_name(variables: Sequence[keras.Variable]) -> Mapping[str, list[keras.Variable]]:
    groups = collections.defaultdict(list)
    for variable in variables:
        groups[re.sub(UNNAMED, "variable", variable.name)].append(variable)
    return groups


def _split(name: str, paths: Collection[str]) -> tuple[str, str]:
    """Keras calls the momentum of ``conv/kernel`` ``conv_kernel_momentum``: path and rest.

    The path is the longest that fits; empty where none does.
    """
    parts = name.split("_")
    for end in range(len(parts) - 1, 0, -1):
        if (path := "_".join(parts[:end])) in paths:
            return path, "_".join(parts[end:])
    return "", name
