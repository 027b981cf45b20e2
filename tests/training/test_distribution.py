"""Training over several devices: TensorFlow's MirroredStrategy, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import keras
import pytest

SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import conftest
from helpers_mirrored import distances
print(json.dumps(distances()))
"""


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a strategy of TensorFlow")
def test_ten_steps_on_two_devices_equal_those_on_one() -> None:
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parents[1])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert {name: d for name, d in found["equal"].items() if d > 1e-6} == {}
    assert found["other alpha"] > 1e-3, "the control"
    assert all(dead > 0 for dead in found["dead"].values()), found["dead"]
