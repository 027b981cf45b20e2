"""The command ``structsparse``, with the chatter of native libraries switched off.

Importing Keras starts TensorFlow, which writes to the error stream below Python and offers no
switch for it. This must be done before any import of the package, so it stands outside.
"""

import importlib.util
import os
import sys
from pathlib import Path

PACKAGE = "keras_structsparse"


def main() -> None:
    """Run the command line; with STRUCTSPARSE_TRACEBACK set, native libraries may talk."""
    if not os.environ.get("STRUCTSPARSE_TRACEBACK"):
        _silence_native_libraries()
    _leave_out_public_names()
    from keras_structsparse.cli.app import main as run

    run()


def _leave_out_public_names() -> None:
    """Import modules of the package without its names, for which Keras would be imported first.

    The commands import the modules that they need, Keras with them; help and mistakes need none.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if PACKAGE not in sys.modules and spec is not None:
        # Not executed, but with its path and file, which tensorflow-datasets asks for.
        package = importlib.util.module_from_spec(spec)
        folder = Path(package.__path__[0])
        if not (folder / "models").is_dir():  # a clone, as in the package's __init__
            package.__path__.append(str(folder.parent))
        sys.modules[PACKAGE] = package


def _silence_native_libraries() -> None:
    """Give Python's own stderr a descriptor of its own, and the shared one to nobody."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


if __name__ == "__main__":
    main()
