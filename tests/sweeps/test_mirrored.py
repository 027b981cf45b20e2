"""A sweep over two devices finds what it finds on one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_sweeps import SETTINGS, started

from keras_structsparse.sweeps import read_run

Array = Any

MINUTES = 10 * 60


def found(folder: Path) -> dict[float, Array]:
    """Of every alpha, for each seed: share of the multiply-adds, accuracy on the validation split.

    That of the smallest threshold.
    """
    best: dict[tuple[float, int], Any] = {}
    for each in sorted(read_run(folder).found(), key=lambda each: -each.point.tau):
        best[each.trial.alpha, each.trial.seed] = each.point
    return {
        alpha: np.array(
            [
                (point.multiply_adds_fraction, point.validation_finetuned)
                for (own, _), point in sorted(best.items())
                if own == alpha
            ]
        )
        for alpha in (0.0, *SETTINGS.alphas)
    }


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a strategy of TensorFlow")
def test_two_devices_find_the_points_of_one_within_the_noise_of_the_seed(tmp_path: Path) -> None:
    flags = {"one": ["seeds"], "two": ["seeds", "mirrored"]}
    processes = [started(tmp_path / name, *words) for name, words in flags.items()]
    assert [process.wait(MINUTES) for process in processes] == [0, 0]
    one, two = (found(tmp_path / name) for name in flags)
    for alpha, points in one.items():
        assert points.shape == two[alpha].shape == (3, 2)
        # Two means of three values each that differ only by noise.
        noise = np.ptp(points, axis=0) + np.ptp(two[alpha], axis=0)
        assert (np.abs(points.mean(0) - two[alpha].mean(0)) <= noise / 2).all(), alpha
    small, large = (one[alpha] for alpha in SETTINGS.alphas)
    differ = np.abs(small.mean(0) - large.mean(0)) > (np.ptp(small, 0) + np.ptp(large, 0)) / 2
    assert differ[0], "the control: another alpha is told apart by its multiply-adds"
