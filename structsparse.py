"""The command ``structsparse``, with the chatter of native libraries switched off.

Importing Keras starts TensorFlow, which writes to the error stream below Python and offers no
switch for it. This must be done before any import of the package, so it stands outside.
"""

import os
import sys


def main() -> None:
    """Run the command line; with STRUCTSPARSE_TRACEBACK set, native libraries may talk."""
    if not os.environ.get("STRUCTSPARSE_TRACEBACK"):
        _silence_native_libraries()
    from keras_structsparse.cli import main as run

    run()


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
