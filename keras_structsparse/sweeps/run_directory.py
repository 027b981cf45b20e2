"""The directory of a run: settings, finished trials, their networks. The only state of a sweep.

A trial is finished when its file of points exists. That file is written last, by renaming. So a
sweep can be killed at any moment; the next one runs the trials that are missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from keras_structsparse._files import new_directory, write_text
from keras_structsparse._records import read_record, shortened
from keras_structsparse._typing import StrPath
from keras_structsparse.errors import OutputError
from keras_structsparse.export.formats import save_model
from keras_structsparse.sweeps.path_state import network_of, read_state, write_state
from keras_structsparse.sweeps.points import Point
from keras_structsparse.sweeps.run_checks import PARTS, check_entries, check_no_orphans, is_there
from keras_structsparse.sweeps.settings import FORMAT, Settings, Trial, differences
from keras_structsparse.sweeps.trial import TrainedNetwork
from keras_structsparse.sweeps.trial_records import (
    AGAIN,
    TrialRecord,
    fingerprint,
    network_name,
    read_object,
    read_trial,
    rounded,
    with_files,
)
from keras_structsparse.sweeps.trial_records import Correlations as Correlations

LEFTOVER = re.compile(r"\..+\.[0-9a-f]{12}\.(json|keras)")
"""Names of files that were being written when a process was killed."""

SETTINGS = "settings.json"
CLAIM = ".claim"


@dataclass(frozen=True)
class Found:
    """A point of a finished trial.

    Attributes:
        trial: The trial.
        point: The point; that of alpha 0 is the dense network.
        model: The file of its network.
    """

    trial: Trial
    point: Point
    model: Path


class Run:
    """A run directory.

    Args:
        folder: The directory; see :func:`open_run` and :func:`read_run`.
        settings: The record of its settings.

    Raises:
        OutputError: The settings are damaged.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings = settings
        self._known = _settings(folder, settings)
        self._models = folder / "models"

    def has(self, trial: Trial) -> bool:
        """Whether a trial is finished."""
        return self._file(trial).is_file()

    def start(self, trial: Trial) -> TrainedNetwork | None:
        """The network that the next trial of a path starts from.

        Returns:
            The network, or None if it was dead.

        Raises:
            OutputError: The record beside it is damaged.
        """
        return read_state(self._state(trial))

    def keep(self, trial: Trial, state: TrainedNetwork) -> None:
        """Write the network that the next trial of a path starts from.

        Args:
            trial: The trial, which is not finished yet.
            state: Its network, plain.
        """
        write_state(self._state(trial), state)

    def add(
        self,
        trial: Trial,
        outcomes: Sequence[tuple[Point, keras.Model]],
        seconds: float,
        correlations: Correlations | None = None,
    ) -> None:
        """Write the networks of a trial, and then its points.

        Args:
            trial: The trial.
            outcomes: Its points with their networks.
            seconds: How long it took.
            correlations: The mean correlation of the kernels, if known.
        """
        names = [network_name(trial, point) for point, _ in outcomes]
        for name, (_, model) in zip(names, outcomes, strict=True):
            save_model(model, self._models / name)
        if (state := self._state(trial)).is_file():
            names += [state.name, network_of(state).name]
        points = tuple(point for point, _ in outcomes)
        record = TrialRecord(
            trial,
            round(seconds, 1),
            points,
            rounded(correlations or {}),
            fingerprint(self.settings),
        )
        write_text(self._file(trial), with_files(record, self._models, names).to_json())

    def found(self) -> list[Found]:
        """All points of all finished trials, by alpha, seed and multiply-adds.

        Raises:
            OutputError: A file of points is damaged.
        """
        points = [
            Found(record.trial, point, self._models / network_name(record.trial, point))
            for record in self._records()
            for point in record.points
        ]
        return sorted(
            points, key=lambda f: (f.trial.alpha, f.trial.seed, f.point.multiply_adds, f.point.tau)
        )

    def trials(self) -> dict[Trial, Sequence[Point]]:
        """The points of every finished trial: none of one whose network died.

        Raises:
            OutputError: A file of points is damaged.
        """
        return {record.trial: record.points for record in self._records()}

    def correlations(self) -> dict[Trial, Correlations]:
        """The correlation of kernels in every finished trial, by alpha and seed; nan where unknown.

        Trials without a record of it are left out.

        Raises:
            OutputError: A file of points is damaged.
        """
        ordered = sorted(self._records(), key=lambda r: (r.trial.alpha, r.trial.seed))
        return {r.trial: r.known_correlations for r in ordered if r.correlations}

    def lost(self) -> dict[Trial, tuple[str, ...]]:
        """The finished trials of which networks are missing or damaged, with the files' names.

        Raises:
            OutputError: A file of points is damaged.
        """
        found = {record.trial: record.lost(self._models) for record in self._records()}
        return {trial: names for trial, names in found.items() if names}

    def missing(self) -> tuple[Trial, ...]:
        """The trials of the settings that are not finished; those of a search are not known."""
        return tuple(trial for trial in self._known.trials if not self.has(trial))

    def forget(self, trial: Trial) -> None:
        """Remove what says that a trial is finished, so that it is trained again."""
        for file in (self._file(trial), self._state(trial)):
            file.unlink(missing_ok=True)

    def _records(self) -> list[TrialRecord]:
        return [self._record(file) for file in (self.folder / "trials").glob("[!.]*.json")]

    def _record(self, file: Path) -> TrialRecord:
        """A finished trial of the settings of this run."""
        record = read_trial(file)
        known = self._known
        mine = record.settings in (None, fingerprint(self.settings))
        if not mine or (known.search is None and record.trial not in known.trials):
            raise OutputError(
                f"run: expected trials of the settings in {self.folder / SETTINGS}. Received: "
                f"{file}, which is of other settings. {AGAIN}, or choose another directory"
            )
        return record

    def dense_and_sparse(self) -> tuple[list[Found], list[Found]]:
        """The points of the dense networks, and all others.

        Raises:
            OutputError: The points of one kind are missing, or a network of a finished trial.
        """
        for trial, names in self.lost().items():
            raise OutputError(
                f"run: expected the networks of all finished trials. Received: "
                f"{self._models / names[0]}, which is missing or damaged. The same sweep trains "
                f"{trial.name} again"
            )
        found = self.found()
        dense = [f for f in found if not f.trial.alpha]
        sparse = [f for f in found if f.trial.alpha]
        if not dense or not sparse:
            raise OutputError(
                "run: expected finished trials of the dense network and of alphas. Received: "
                f"{self.folder} with {len(dense)} and {len(sparse)}"
            )
        return dense, sparse

    def claim(self, trial: Trial) -> Path:
        """The file that says that a process trains a trial, see `claims`."""
        file = self._file(trial)
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.with_name(f".{trial.name}{CLAIM}")

    def tidy(self) -> None:
        """Remove files that a killed process was writing, unless others may be writing now."""
        if any((self.folder / "trials").glob(f".*{CLAIM}")):
            return
        for part in PARTS:
            for file in (self.folder / part).glob(".*"):
                if LEFTOVER.fullmatch(file.name):
                    file.unlink(missing_ok=True)

    def _file(self, trial: Trial) -> Path:
        return self.folder / "trials" / f"{trial.name}.json"

    def _state(self, trial: Trial) -> Path:
        return self._models / f"{trial.name}-trained.json"


def open_run(folder: StrPath, settings: Settings) -> Run:
    """Begin a run in a new or empty directory, or continue one of the same settings.

    Args:
        folder: The directory.
        settings: The settings.

    Returns:
        The run.

    Raises:
        OutputError: The directory holds something else, or a run of other settings.
    """
    path = new_directory(folder, "--out")
    wanted = settings.record()
    if not is_there(path / SETTINGS):
        check_no_orphans(path, SETTINGS)
        write_text(path / SETTINGS, json.dumps(wanted, indent=1) + "\n")
    run = read_run(path)
    if differing := differences(run.settings, wanted):
        raise OutputError(
            "--out: expected a new directory, or a run with the same settings. Received: "
            f"{path / SETTINGS}, {'; '.join(differing)}"
        )
    check_entries(path)
    run.trials()  # Now, not after the first training.
    return run


def read_run(folder: StrPath) -> Run:
    """Read a run.

    Args:
        folder: Its directory.

    Returns:
        The run.

    Raises:
        OutputError: The directory holds no run, or one of another version.
    """
    path = Path(folder)
    file = path / SETTINGS
    record = read_object(file, f"run: expected a directory of a sweep. Received: {file}")
    if record.get("format") != FORMAT:
        raise OutputError(
            f"run: expected a directory of format '{FORMAT}'. "
            f"Received: {file}, which is of {shortened(record.get('format'))}"
        )
    return Run(path, record)


def _settings(folder: Path, record: Mapping[str, Any]) -> Settings:
    """The settings that a record holds."""
    fields = {name: value for name, value in record.items() if name != "format"}
    return read_record(Settings, fields, f"run: {folder / SETTINGS}", OutputError)
