"""Alpha sweeps that resume: settings, trials, the run directory, keras-tuner around them.

The names of this package are imported when they are used: the options of the command line are read
off :class:`Settings`, and help must not wait for Keras.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_structsparse.sweeps.run_directory import Found, Run, open_run, read_run
    from keras_structsparse.sweeps.settings import Search, Settings, Trial
    from keras_structsparse.sweeps.sweeping import sweep

__all__ = ["Found", "Run", "Search", "Settings", "Trial", "open_run", "read_run", "sweep"]

_MODULES = {
    "run_directory": ("Found", "Run", "open_run", "read_run"),
    "settings": ("Search", "Settings", "Trial"),
    "sweeping": ("sweep",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
