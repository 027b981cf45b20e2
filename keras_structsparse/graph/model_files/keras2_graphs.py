"""Translate the calls in functional models of Keras 2: they are written in another form there."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

Config = dict[str, Any]

_RECURRENT = ("SimpleRNN", "LSTM", "GRU", "RNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D")
"""Layers that Keras 2 called with their initial states beside the input."""

MODEL, SEQUENTIAL = "Model", "Sequential"


def with_new_calls(model: Mapping[str, Any], layers: Sequence[Config]) -> Config:
    """The configuration of a functional model with calls as Keras 3 writes them.

    Args:
        model: The configuration of Keras 2.
        layers: Its translated layers, with the old calls as "inbound_nodes".

    Returns:
        The configuration, with "layers".
    """
    kinds = {str(layer["name"]): str(layer["class_name"]) for layer in layers}
    references = list(_references([*(_old_calls(layers)), model.get("output_layers", [])], kinds))
    # A nested model counted its own graph as its first call.
    first = {name: min((i for n, i, _ in references if n == name), default=0) for name in kinds}
    shift = {n: int(kinds[n] in (MODEL, SEQUENTIAL) and first[n] > 0) for n in kinds}
    new = [
        {**layer, "inbound_nodes": [_call(node, kinds, shift, layer) for node in _nodes(layer)]}
        for layer in layers
    ]
    outputs = _shifted(
        model.get("output_layers", []),
        {name: by if kinds[name] == SEQUENTIAL else 0 for name, by in shift.items()},
    )
    ends = {"input_layers": model.get("input_layers", []), "output_layers": outputs}
    return {**model, "layers": new, **{name: _alone(ends[name]) for name in ends}}


def _alone(ends: Any) -> Any:
    """One input or output without the list around it, in which Keras 2 wrote it."""
    return ends[0] if isinstance(ends, list) and len(ends) == 1 else ends


def _nodes(layer: Mapping[str, Any]) -> Sequence[Any]:
    return list(layer.get("inbound_nodes") or ())


def _old_calls(layers: Sequence[Config]) -> Iterator[Any]:
    for layer in layers:
        yield from _nodes(layer)


def _call(node: Any, kinds: Collection[str], shift: Mapping[str, int], layer: Config) -> Any:
    """A call in the new form; one that is not understood stays as it is."""
    if not isinstance(node, list) or not node:
        return node
    entries = [node] if _is_reference(node[:3], kinds) else node
    if not all(isinstance(e, list) and _is_reference(e[:3], kinds) for e in entries):
        return node
    tensors = [_tensor(entry, shift) for entry in entries]
    options: Config = {}
    for entry in entries:
        options.update(entry[3] if len(entry) > 3 else {})
    options = {name: _filled(value, kinds, shift) for name, value in options.items()}
    if layer["class_name"] in _RECURRENT and len(tensors) > 1:
        return {"args": tensors[:1], "kwargs": {**options, "initial_state": tensors[1:]}}
    return {"args": tensors if len(tensors) == 1 else [tensors], "kwargs": options}


def _tensor(reference: Sequence[Any], shift: Mapping[str, int]) -> Config:
    name, call, output = reference[:3]
    history = [name, call - shift[name], output]
    # Shape and dtype are those of the tensor that the history names.
    own = {"shape": [None], "dtype": "float32", "keras_history": history}
    return {"class_name": "__keras_tensor__", "config": own}


def _filled(value: Any, kinds: Collection[str], shift: Mapping[str, int]) -> Any:
    """The value of an option, with its tensors in the new form."""
    if isinstance(value, list):
        if _is_reference(value[:3], kinds):
            return _tensor(value, shift)
        return [_filled(each, kinds, shift) for each in value]
    return value


def _is_reference(value: Sequence[Any], kinds: Collection[str]) -> bool:
    """Whether a list names the output of a call: layer, number of the call, and of the output."""
    if len(value) != 3 or not isinstance(value[0], str) or value[0] not in kinds:
        return False
    return all(isinstance(number, int) for number in value[1:])


def _references(value: Any, kinds: Collection[str]) -> Iterator[tuple[str, int, int]]:
    if isinstance(value, list):
        if _is_reference(value[:3], kinds):
            yield value[0], value[1], value[2]
        for each in value:
            yield from _references(each, kinds)
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _references(each, kinds)


def _shifted(value: Any, shift: Mapping[str, int]) -> Any:
    if isinstance(value, Mapping):
        return {name: _shifted(each, shift) for name, each in value.items()}
    if not isinstance(value, list):
        return value
    if _is_reference(value, shift):
        return [value[0], value[1] - shift[value[0]], value[2]]
    return [_shifted(each, shift) for each in value]
