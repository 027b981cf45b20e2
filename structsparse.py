"""The command ``structsparse``: a start without Keras, and without the log lines of TensorFlow.

Importing Keras starts TensorFlow, which writes to the error stream below Python and has no option
against it. The stream must be redirected before any import of the package, so this module is not
part of the package.

``import keras_structsparse`` imports Keras: its classes must be registered before a model that
holds them is loaded, so its names cannot be imported on first use. The command line therefore
imports the modules of the package without running its ``__init__``, so that ``--help`` comes at
once. Where a command loads models, `keras_structsparse.cli.files` registers the classes.
"""

import importlib.util
import os
import sys
from pathlib import Path

PACKAGE = "keras_structsparse"


def main() -> None:
    """Run the command line; with STRUCTSPARSE_TRACEBACK set, TensorFlow's log lines are shown."""
    if not os.environ.get("STRUCTSPARSE_TRACEBACK"):
        _silence_native_libraries()
    _leave_out_public_names()
    from keras_structsparse.cli.main import main as run

    run()


def _leave_out_public_names() -> None:
    """Put a package without its names in place, so that importing a module of it imports no Keras.

    The commands import the modules that they need; help and usage errors need none with Keras.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if PACKAGE not in sys.modules and spec is not None:
        # Not executed, but with its path and file, which tensorflow-datasets reads.
        package = importlib.util.module_from_spec(spec)
        folder = Path(package.__path__[0])
        if not (folder / "models").is_dir():  # a clone, as in the package's __init__
            package.__path__.append(str(folder.parent))
        sys.modules[PACKAGE] = package


def _silence_native_libraries() -> None:
    """Give Python's stderr a descriptor of its own, and send the shared one to the null device."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


if __name__ == "__main__":
    main()
