"""What every test gets: a quiet, small TensorFlow, a fresh Keras state, repeatable hypothesis."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

# Before anything imports a backend. One thread each: the xdist workers share the cores.
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_NUM_INTRAOP_THREADS"] = "1"
os.environ["TF_NUM_INTEROP_THREADS"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["JAX_ENABLE_X64"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import pytest
from hypothesis import HealthCheck, settings

# JAX compiles every operation for every shape.
EXAMPLES = 2 if os.environ["KERAS_BACKEND"] == "jax" else 100

settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci")

SEED = 0


def fresh_keras() -> None:
    """Names, floatx, dtype policy, image format, seeds and determinism as in a new process."""
    keras = sys.modules.get("keras")
    if keras is None:  # a test that does not use Keras should not pay for its import
        return
    keras.utils.clear_session(free_memory=False)
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    keras.config.set_image_data_format("channels_last")
    keras.utils.set_random_seed(SEED)
    tensorflow = sys.modules.get("tensorflow.python.framework.config")
    if tensorflow is not None:  # a quickstart makes operations deterministic, for good
        tensorflow.disable_op_determinism()


@pytest.fixture(autouse=True)
def _keras_state() -> Iterator[None]:
    fresh_keras()
    yield
    fresh_keras()
