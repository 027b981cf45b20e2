"""Store the state of a shrinking after every epoch, so that it can be continued after a kill."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from keras_structsparse._files import new_directory, write_atomically
from keras_structsparse._records import parse_json, read_record
from keras_structsparse._typing import Array
from keras_structsparse._validation import nonnegative_int, one_of
from keras_structsparse.errors import OutputError
from keras_structsparse.export.formats import save_model
from keras_structsparse.graph.model_files.loading import load_model

SEED = "seed"
"""What a state calls the seed of all that is drawn."""

STATE, PRUNED = "state.npz", "pruned.keras"
LOSSES = "losses/"
"""What the names of the arrays in the file begin with that are not numbered."""

FORMAT = "keras_structsparse.shrinking/1"
DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class State:
    """A shrinking after an epoch.

    Attributes:
        stage: "remove" or "tune".
        epochs: Number of finished epochs of all stages.
        values: The weights of the network and the variables of its optimizer.
        history: The logs of the finished epochs.
        known: What else the stages must know, as JSON takes it.
        losses: What the loss would lose without each group, by layer, as it was measured so far.
    """

    stage: str
    epochs: int
    values: Sequence[Array]
    history: Mapping[str, list[float]]
    known: Mapping[str, Any]
    losses: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class _Head:
    """What is stored beside the arrays of a state."""

    format: str
    settings: str
    stage: str
    epochs: int
    history: Mapping[str, tuple[Any, ...]]
    known: Mapping[str, Any]
    count: int

    def __post_init__(self) -> None:
        one_of("stage", self.stage, ("remove", "tune"))
        nonnegative_int("epochs", self.epochs)
        nonnegative_int("count", self.count)
        nonnegative_int(SEED, self.known.get(SEED, 0))


class Checkpoints:
    """The directory with the state of one shrinking; without one, nothing is stored.

    Args:
        directory: The directory, new or empty or made by an earlier call; or None.
        settings: What the shrinking depends on; a state of other settings is refused.

    Raises:
        OutputError: The directory holds something else.
    """

    def __init__(self, directory: str | Path | None, settings: Mapping[str, Any]) -> None:
        self.folder = None if directory is None else new_directory(directory, "workdir")
        self._settings = json.dumps(settings, sort_keys=True)

    def load(self) -> State | None:
        """The last stored state; None if there is none.

        Raises:
            OutputError: The state belongs to another model or other settings, or is damaged.
        """
        if self.folder is None or not (self.folder / STATE).exists():
            return None
        try:
            # From memory: NumPy does not close a file that is no archive.
            content = io.BytesIO((self.folder / STATE).read_bytes())
            with np.load(content, allow_pickle=False) as stored:
                head = read_record(_Head, parse_json(str(stored["head"])), STATE)
                values = [stored[str(number)] for number in range(head.count)]
                found = [key for key in stored.files if key.startswith(LOSSES)]
                losses = {key.removeprefix(LOSSES): stored[key] for key in found}
            settings = dict(parse_json(head.settings))
        except DAMAGED as error:
            raise OutputError(
                f"workdir: expected the state of a shrinking in {self.folder / STATE}. Received: "
                f"{error}. Remove the directory to begin again"
            ) from error
        mine = json.loads(self._settings)
        other = [name for name, value in mine.items() if settings.get(name) != value]
        if head.format != FORMAT or other:
            belongs = f"which belongs to another {', '.join(other) or head.format}"
            raise OutputError(
                f"workdir: expected a directory of this model and these settings. Received: "
                f"{self.folder}, {belongs}. Choose another one"
            )
        history = {name: list(logs) for name, logs in head.history.items()}
        return State(head.stage, head.epochs, values, history, head.known, losses)

    def save(
        self,
        stage: str,
        epochs: int,
        model: keras.Model,
        history: Mapping[str, list[float]],
        known: Mapping[str, Any],
        losses: Mapping[str, Array] = MappingProxyType({}),
    ) -> State:
        """Store the state after an epoch; the file is the old one or the new one, never a half.

        Args:
            stage: "remove" or "tune".
            epochs: Number of finished epochs of all stages.
            model: The network, compiled.
            history: The logs of the finished epochs.
            known: What else the stages must know, as JSON takes it.
            losses: What the loss would lose without each group, by layer.

        Returns:
            The state.
        """
        values = [np.array(keras.ops.convert_to_numpy(v)) for v in _variables(model)]
        state = State(stage, epochs, values, history, known, dict(losses))
        self.store(state)
        return state

    def store(self, state: State) -> None:
        """Store a state.

        Args:
            state: The state; what it knows is as JSON takes it.
        """
        if self.folder is None:
            return
        head = json.dumps(
            {
                "format": FORMAT,
                "settings": self._settings,
                "stage": state.stage,
                "epochs": state.epochs,
                "history": state.history,
                "known": state.known,
                "count": len(state.values),
            }
        )
        arrays = {str(number): value for number, value in enumerate(state.values)}
        arrays |= {LOSSES + name: value for name, value in state.losses.items()}

        def write(path: Path) -> None:
            np.savez(path, head=np.array(head), **arrays)

        write_atomically(self.folder / STATE, write)

    def inside(self, name: str) -> Checkpoints:
        """The states of a part of this shrinking, in a directory of their own.

        Args:
            name: The name of the directory.
        """
        folder = None if self.folder is None else self.folder / name
        return Checkpoints(folder, json.loads(self._settings))

    def save_pruned(self, model: keras.Model) -> None:
        """Store the rebuilt network, without its optimizer.

        Args:
            model: The network.
        """
        if self.folder is not None:
            save_model(model, self.folder / PRUNED)

    def load_pruned(self) -> keras.Model:
        """The rebuilt network, uncompiled.

        Raises:
            OutputError: It is missing or damaged.
        """
        assert self.folder is not None
        try:
            return load_model(self.folder / PRUNED, compile=False)
        except (OSError, ValueError, KeyError) as error:
            raise OutputError(
                f"workdir: expected the rebuilt network in {self.folder / PRUNED}. Received: "
                f"{error}. Remove the directory to begin again"
            ) from error


def restore(model: keras.Model, state: State) -> None:
    """Give a network and its optimizer the values of a state.

    Args:
        model: The network, compiled as it was; its optimizer is built.
        state: The state.

    Raises:
        OutputError: The state is of another network.
    """
    variables = _variables(model)
    shapes = [tuple(variable.shape) for variable in variables]
    if shapes != [value.shape for value in state.values]:
        raise OutputError(
            f"workdir: expected the weights of the {state.stage} stage in {STATE}. Received arrays "
            "of other shapes. Remove the directory to begin again"
        )
    for variable, value in zip(variables, state.values, strict=True):
        variable.assign(value)


def _variables(model: keras.Model) -> list[keras.Variable]:
    """The weights, the states of random layers, and the variables of the optimizer."""
    teacher = getattr(getattr(model, "teacher", None), "variables", ())
    others = {id(variable) for variable in (*teacher, *model.metrics_variables)}
    own = [variable for variable in model.variables if id(variable) not in others]
    return [*own, *model.optimizer.variables]


def reseed(model: keras.Model, rng: np.random.Generator) -> None:
    """Give the random layers of a network other states.

    Args:
        model: The network; it need not be compiled.
        rng: Draws the states.
    """
    for variable in model.variables:
        if variable.name == "seed_generator_state":
            variable.assign(rng.integers(2**31, size=variable.shape).astype(variable.dtype))


def fingerprint(model: keras.Model) -> str:
    """A number that two models share only if all their weights are equal.

    Args:
        model: The model.
    """
    found = hashlib.sha256()
    for weight in model.weights:
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
        found.update(f"{value.dtype}{value.shape}".encode())
        found.update(value.tobytes())
    return found.hexdigest()
