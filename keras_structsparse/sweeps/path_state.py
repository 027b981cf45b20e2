"""The network that the next trial of a path starts from, in two files: itself and its ancestry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_structsparse._files import write_text
from keras_structsparse._records import read_record
from keras_structsparse._validation import positive_int
from keras_structsparse.errors import OutputError, PlanError
from keras_structsparse.export.formats import SUFFIX, load_model, save_model
from keras_structsparse.surgery.kernel_provenance import Ancestry
from keras_structsparse.sweeps.trial import TrainedNetwork
from keras_structsparse.sweeps.trial_records import read_object


@dataclass(frozen=True)
class _State:
    """What is written beside the network."""

    ancestry: Mapping[str, Any]
    whole: int

    def __post_init__(self) -> None:
        positive_int("whole", self.whole)


def read_state(file: Path) -> TrainedNetwork | None:
    """Read the network.

    Args:
        file: The file of its ancestry; the network is beside it.

    Returns:
        The network, or None if there is none: it was dead.

    Raises:
        ModelError: The network is damaged.
        OutputError: The ancestry is damaged.
    """
    if not file.is_file():
        return None
    where = f"run: expected the ancestry of a network. Received: {file}"
    state = read_record(_State, read_object(file, where), where, OutputError)
    try:
        ancestry = Ancestry.from_json(json.dumps(state.ancestry))
    except PlanError as error:
        raise OutputError(f"{where} ({error})") from error
    return TrainedNetwork(load_model(network_of(file)), ancestry, state.whole)


def write_state(file: Path, state: TrainedNetwork) -> None:
    """Write the network, and then its ancestry.

    Args:
        file: The file of its ancestry.
        state: The network, plain.
    """
    save_model(state.model, network_of(file))
    record = {"ancestry": json.loads(state.ancestry.to_json()), "whole": state.whole}
    write_text(file, json.dumps(record) + "\n")


def network_of(file: Path) -> Path:
    """The file of the network beside that of its ancestry."""
    return file.with_suffix(SUFFIX)
