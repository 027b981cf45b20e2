"""The directory of a run: settings, finished trials, their networks. The only state of a sweep.

A trial is finished when its file of points exists. That file is written last, by renaming. So a
sweep can be killed at any moment; the next one runs the trials that are missing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras

from keras_structsparse._files import new_directory, write_text
from keras_structsparse._typing import StrPath
from keras_structsparse.errors import OutputError, PlanError
from keras_structsparse.export.formats import SUFFIX, load_model, save_model
from keras_structsparse.surgery.kernel_provenance import Ancestry
from keras_structsparse.sweeps.points import Point
from keras_structsparse.sweeps.settings import FORMAT, Settings, Trial, differences
from keras_structsparse.sweeps.trial import TrainedNetwork

LEFTOVER = re.compile(r"\..+\.[0-9a-f]{12}\.(json|keras)")
"""Names of files that were being written when a process was killed."""


Correlations = Mapping[str, Sequence[float]]
"""By layer of the base network, the mean correlation of its kernels after every epoch."""


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


@dataclass(frozen=True)
class _Record:
    """What the file of a finished trial holds."""

    trial: Trial
    points: Sequence[Point]
    correlations: Correlations


class Run:
    """A run directory.

    Args:
        folder: The directory; see :func:`open_run` and :func:`read_run`.
        settings: The record of its settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings = settings

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
        file = self._state(trial)
        if not file.is_file():
            return None
        record = _json(file, f"run: expected the ancestry of a network. Received: {file}")
        try:
            ancestry = Ancestry.from_json(json.dumps(record["ancestry"]))
            return TrainedNetwork(
                load_model(file.with_suffix(SUFFIX)), ancestry, int(record["whole"])
            )
        except (KeyError, TypeError, PlanError) as error:
            raise OutputError(
                f"run: expected the ancestry of a network. Received: {file} ({error})"
            ) from error

    def keep(self, trial: Trial, state: TrainedNetwork) -> None:
        """Write the network that the next trial of a path starts from.

        Args:
            trial: The trial, which is not finished yet.
            state: Its network, plain.
        """
        file = self._state(trial)
        save_model(state.model, file.with_suffix(SUFFIX))
        record = {"ancestry": json.loads(state.ancestry.to_json()), "whole": state.whole}
        write_text(file, json.dumps(record) + "\n")

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
        for point, model in outcomes:
            save_model(model, self._model(trial, point))
        record = {
            "trial": asdict(trial),
            "seconds": round(seconds, 1),
            "points": [asdict(point) for point, _ in outcomes],
            "correlations": {
                # JSON has no nan.
                name: [None if math.isnan(value) else round(value, 6) for value in values]
                for name, values in (correlations or {}).items()
            },
        }
        write_text(self._file(trial), json.dumps(record, indent=1) + "\n")

    def found(self) -> list[Found]:
        """All points of all finished trials, by alpha, seed and multiply-adds.

        Raises:
            OutputError: A file of points is damaged.
        """
        points = [
            Found(record.trial, point, self._model(record.trial, point))
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
        return {record.trial: record.correlations for record in ordered if record.correlations}

    def _records(self) -> list[_Record]:
        return [_read(file) for file in (self.folder / "trials").glob("[!.]*.json")]

    def dense_and_sparse(self) -> tuple[list[Found], list[Found]]:
        """The points of the dense networks, and all others.

        Raises:
            OutputError: The points of one kind are missing.
        """
        found = self.found()
        dense = [f for f in found if not f.trial.alpha]
        sparse = [f for f in found if f.trial.alpha]
        if not dense or not sparse:
            raise OutputError(
                "run: expected finished trials of the dense network and of alphas. Received: "
                f"{self.folder} with {len(dense)} and {len(sparse)}"
            )
        return dense, sparse

    def tidy(self) -> None:
        """Remove files that a killed process was writing. No other process may be writing."""
        for part in ("trials", "models"):
            for file in (self.folder / part).glob(".*"):
                if LEFTOVER.fullmatch(file.name):
                    file.unlink(missing_ok=True)

    def _file(self, trial: Trial) -> Path:
        return self.folder / "trials" / f"{trial.name}.json"

    def _state(self, trial: Trial) -> Path:
        return self.folder / "models" / f"{trial.name}-trained.json"

    def _model(self, trial: Trial, point: Point) -> Path:
        return self.folder / "models" / f"{trial.name}-tau-{point.tau!r}{SUFFIX}"


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
    if not (path / "settings.json").exists():
        write_text(path / "settings.json", json.dumps(wanted, indent=1) + "\n")
    run = read_run(path)
    if differing := differences(run.settings, wanted):
        raise OutputError(
            f"--out: expected a new directory, or a run with the same settings. Received: {path}, "
            + "; ".join(differing)
        )
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
    record = _json(
        path / "settings.json", f"run: expected a directory of a sweep. Received: {path}"
    )
    if record.get("format") != FORMAT:
        raise OutputError(
            f"run: expected a directory of format '{FORMAT}'. "
            f"Received: {path}, which is of {record.get('format')!r}"
        )
    return Run(path, record)


def _read(file: Path) -> _Record:
    record = _json(file, f"run: expected the points of a trial. Received: {file}")
    try:
        points = [Point(**point) for point in record["points"]]
        correlations = {
            name: tuple(math.nan if value is None else float(value) for value in values)
            for name, values in record.get("correlations", {}).items()
        }
        return _Record(Trial(**record["trial"]), points, correlations)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise OutputError(
            f"run: expected the points of a trial. Received: {file} ({error})"
        ) from error


def _json(file: Path, complaint: str) -> dict[str, Any]:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{complaint} ({error})") from error
    if not isinstance(record, dict):
        raise OutputError(f"{complaint} (its content is {type(record).__name__})")
    return record
