"""Every private part of Keras that this package uses, behind functions with names of the field.

No other module touches one. Keras may rename a private part in any release, so each is read when it
is needed, and a Keras without it fails with one sentence that says which.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import keras

from keras_structsparse._typing import Tensor
from keras_structsparse.errors import UnsupportedKerasError

Optimizer = Any
Slot = Sequence[keras.Variable | None]

OLDEST = "3.12"  # the oldest Keras that has all of these


def _private(owner: Any, name: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        raise _lacking(f"{type(owner).__name__}.{name}") from None


def _lacking(name: str) -> UnsupportedKerasError:
    return UnsupportedKerasError(
        f"Keras {keras.__version__}: expected it to have '{name}', which keras_structsparse uses "
        f"and this version lacks. Install another Keras from {OLDEST} on, or a newer "
        "keras_structsparse."
    )


@cache
def functional_class() -> Any:
    """The class of functional models, which Keras does not export."""
    try:
        return importlib.import_module("keras.src.models.functional").Functional
    except (ImportError, AttributeError):
        raise _lacking("keras.src.models.functional.Functional") from None


def input_structure(model: keras.Model) -> Any:
    """The input tensors of a functional model, nested as it takes them."""
    return _private(model, "_inputs_struct")


def output_structure(model: keras.Model) -> Any:
    """The output tensors of a functional model, nested as it returns them."""
    return _private(model, "_outputs_struct")


@contextlib.contextmanager
def float64_kept() -> Iterator[None]:
    """Let operations on float64 return float64 where the backend can compute it.

    Except with TensorFlow, Keras computes products of float64 in float32, as JAX does by default.
    """
    dtypes = importlib.import_module("keras.src.backend.common.dtypes")
    narrowed: dict[str, str] = _private(dtypes, "BIT64_TO_BIT32_DTYPE")
    before = dict(narrowed)
    narrowed["float64"] = "float64"
    try:
        yield
    finally:
        narrowed.update(before)


@dataclass(frozen=True)
class Node:
    """One call of an operation in the graph of a functional model.

    Attributes:
        operation: The operation.
        inputs: The symbolic tensors among its arguments, in order.
        outputs: The symbolic tensors that it returned, in order.
        arguments: All its arguments, as Keras keeps them.
    """

    operation: keras.Operation
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    arguments: Any


def nodes(model: keras.Model) -> Iterator[Node]:
    """The calls of a functional model in topological order, without its inputs."""
    by_depth = _private(model, "_nodes_by_depth")
    for depth in sorted(by_depth, reverse=True):
        yield from (_node(node) for node in by_depth[depth] if not node.is_input)


def producer(tensor: Tensor) -> Node:
    """The call that returned a symbolic tensor."""
    operation, place, _ = _private(tensor, "_keras_history")
    return _node(_private(operation, "_inbound_nodes")[place])


def _node(node: Any) -> Node:
    return Node(node.operation, tuple(node.input_tensors), tuple(node.outputs), node.arguments)


def mask_of(tensor: Tensor) -> Tensor | None:
    """The mask that travels beside a symbolic tensor; None if there is none."""
    return getattr(tensor, "_keras_mask", None)


def keyword_arguments(arguments: Any) -> Mapping[str, Any]:
    """The keyword arguments of a call."""
    return _private(arguments, "kwargs")


def filled(arguments: Any, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call with ``tensors`` in the places of its symbolic ones."""
    places = _private(arguments, "keras_tensors")
    values = {id(place): value for place, value in zip(places, tensors, strict=True)}
    return _private(arguments, "fill_in")(values)


def without_calls(operation: keras.Operation, name: str) -> keras.Operation:
    """The same instance once more under another name, as if it had never been called."""
    for attribute in ("_inbound_nodes", "_outbound_nodes"):
        _private(operation, attribute)
    twin = object.__new__(type(operation))  # copy.copy saves and loads, which may fail
    twin.__dict__.update(operation.__dict__)
    twin.__dict__.update(_inbound_nodes=[], _outbound_nodes=[], name=name)
    return twin


def constructor_arguments(layer: keras.Layer) -> dict[str, Any] | None:
    """The arguments that a layer was made with; None where Keras could not write them down."""
    recorded = _private(layer, "_auto_config")
    return None if recorded is None else dict(recorded.config)


def inner_layers(layer: keras.Layer) -> Sequence[keras.Layer]:
    """The layers inside a layer."""
    return list(_private(layer, "_flatten_layers")(include_self=False))


def set_dtype_policy(layer: keras.Layer, policy: Any) -> None:
    """Replace the dtype policy of a layer, whatever it is; the setter only adds to a map."""
    _private(layer, "_dtype_policy")
    layer._dtype_policy = policy


@dataclass(frozen=True)
class LossRequest:
    """A reading of ``losses``.

    Attributes:
        owner: The layer or model whose losses are read.
        by_trainer: Whether it computes the loss that it trains or evaluates itself with.
        training: Whether it trains itself with that loss.
    """

    owner: keras.Layer
    by_trainer: bool
    training: bool = False


READER = "_get_regularization_losses"  # calls the regularizers of a layer for its `losses`
LOSS_METHODS = {"compute_loss", "compute_loss_and_updates", "train_step", "test_step"}
NEAR, FAR = 6, 40  # frames that are looked through for the reader, and for its training step


def loss_request() -> LossRequest | None:
    """Who reads the ``losses`` that a regularizer is called for.

    Keras calls a regularizer with its variable alone, and has no hook that says for which model. It
    cannot be noted beforehand: a layer may belong to several models with different optimizers, and
    models that are loaded or cloned do not pass through this package. To replace a method of Keras
    would change the models of others. So the model is found on the call stack, in the frame of
    :data:`READER`. None where the regularizer is called by something else.
    """
    if not hasattr(keras.Layer, READER):
        raise _lacking(f"Layer.{READER}")
    frame, owner, methods = inspect.currentframe(), None, set[str]()
    for place in range(FAR):
        frame = frame and frame.f_back
        if frame is None or (owner is None and place > NEAR):
            break
        if owner is None and frame.f_code.co_name == READER:
            owner = frame.f_locals.get("self")
        elif owner is not None and frame.f_locals.get("self") is owner:
            methods.add(frame.f_code.co_name)
    by_trainer, training = bool(methods & LOSS_METHODS), "train_step" in methods
    return None if owner is None else LossRequest(owner, by_trainer, training)


def callbacks_of_fit() -> list[keras.callbacks.Callback]:
    """All callbacks of the ``fit`` that is calling one of them, found on the call stack."""
    frame, found = inspect.currentframe(), list[Any]()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList):
            found += [each for each in caller.callbacks if each not in found]
        frame = frame.f_back
    return found


def forget_compiled_functions(model: keras.Model) -> None:
    """Let Keras trace a compiled model again: its functions would keep the old loss."""
    for name in ("train_function", "test_function"):
        if getattr(model, name, None) is not None:
            setattr(model, name, None)


def sync_jax_state(model: keras.Model) -> None:
    """Make variables writable for a callback: the trainer of JAX holds their values meanwhile."""
    if keras.backend.backend() == "jax":
        _private(model, "jax_state_sync")()


def metric_function(metric: keras.metrics.Metric) -> partial[Tensor]:
    """The function of targets and outputs whose mean a ``MeanMetricWrapper`` is."""
    return partial(_private(metric, "_fn"), **_private(metric, "_fn_kwargs"))


def set_fallback_value(variable: keras.Variable, value: Tensor) -> None:
    """Let a scalar variable that the trainer of JAX has emptied give this value when it is read."""
    if keras.backend.backend() == "jax":
        _private(variable, "_initializer")
        variable._initializer = keras.initializers.Constant(float(value))


def trained_variables(optimizer: Optimizer) -> Sequence[keras.Variable]:
    """The variables that an optimizer was built for."""
    return _private(optimizer, "_trainable_variables")


def variable_index(optimizer: Optimizer, variable: keras.Variable) -> int:
    """The place of a variable among those that an optimizer was built for."""
    return _private(optimizer, "_get_variable_index")(variable)


def uses_weight_decay(optimizer: Optimizer, variable: keras.Variable) -> bool:
    """Whether an optimizer with weight decay lets this variable decay."""
    return bool(_private(optimizer, "_use_weight_decay")(variable))


def batches_seen(optimizer: Optimizer) -> keras.Variable:
    """The number of gradients that an optimizer received; its steps are fewer if it sums them."""
    return _private(optimizer, "_iterations")


def track(optimizer: Optimizer, variable: keras.Variable) -> None:
    """Make a variable part of the state of an optimizer."""
    _private(optimizer, "_track_variable")(variable)


def weight_averages(optimizer: Optimizer) -> Slot:
    """The moving average of every variable, of an optimizer with ``use_ema``."""
    return _private(optimizer, WEIGHT_AVERAGES)


def _slot(name: str) -> Callable[[Optimizer], Slot]:
    return lambda optimizer: _private(optimizer, name)


# Running means of every gradient, of its square, and the largest of the latter (AMSGrad).
first_moments = _slot("_momentums")
second_moments = _slot("_velocities")
largest_second_moments = _slot("_velocity_hats")
infinity_norms = _slot("_u")  # the running maximum of every gradient (Adamax)
mean_gradients = _slot("_average_gradients")  # the running mean (a centred RMSprop)
summed_squares = _slot("_accumulators")  # the sum of every squared gradient (Adagrad)

WEIGHT_AVERAGES = "_model_variables_moving_average"  # the key of `slots` for weights' averages


def slots(optimizer: Optimizer) -> dict[str, Slot]:
    """All that a built optimizer, without one that it wraps, keeps of each variable.

    Returns:
        By the optimizer's name for it, lists in the order of :func:`trained_variables`. An entry is
        None where the optimizer keeps nothing of that variable.
    """
    trained = trained_variables(optimizer)
    others = {"_trainable_variables", "_variables"}

    def is_slot(value: Any) -> bool:
        return (
            isinstance(value, list)
            and len(value) == len(trained) > 0
            and all(entry is None or isinstance(entry, keras.Variable) for entry in value)
            and any(entry is not None for entry in value)
        )

    return {n: list(v) for n, v in vars(optimizer).items() if n not in others and is_slot(v)}
