"""The command line. ``keras_structsparse.cli.app`` is the Typer application of all commands."""

from typing import Any


def __getattr__(name: str) -> Any:
    # On first use: the application imports every command.
    if name == "app":
        from keras_structsparse.cli.main import app

        return app
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
