"""The command ``export``: a model for use without Keras."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_structsparse.cli import outputs
from keras_structsparse.cli.generated_options import Fields, with_generated_options
from keras_structsparse.cli.options import DataDir, Force, ModelFile, one_of
from keras_structsparse.data.augmentation import ImageOptions

if TYPE_CHECKING:
    import keras

EXAMPLE = (
    "Example, after that of prune:\n\nstructsparse export pruned.keras --out saved_model\n\n"
    "structsparse export pruned.keras --quantize int8 --data digits \\\n"
    "    --format litert --out pruned.tflite"
)

ENDINGS = {"saved_model": None, "litert": ".tflite", "onnx": ".onnx"}
"""How the name of a file ends, by format; None for a directory."""

QUANTIZE = ("none", "int8", "dynamic")

BATCH = 32
"""Images that are read at once."""


@with_generated_options
def export(
    model: ModelFile,
    out: Annotated[
        Path, typer.Option(metavar="DIR|FILE", help="A directory, or a .tflite or .onnx file.")
    ],
    images: Annotated[
        ImageOptions, Fields(ImageOptions, only=("image_size", "preprocess"), panel="Images")
    ],
    format: Annotated[
        str,
        one_of(tuple(ENDINGS), "What to export to."),
    ] = "saved_model",
    quantize: Annotated[
        str,
        one_of(
            QUANTIZE,
            "int8 computes in 8 bits and needs --data (litert, onnx); dynamic stores the weights "
            "in 8 bits (litert).",
        ),
    ] = "none",
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="NAME|DIR|FILE.npz",
            help="Data as for train, for --quantize int8: activations get the ranges that they "
            "have on 200 images.",
        ),
    ] = None,
    data_dir: DataDir = None,
    fold: Annotated[
        bool,
        typer.Option(help="Fold batch normalisations into convolutions, checked in float64."),
    ] = True,
    force: Force = False,
) -> None:
    """Export a model for use without Keras, and run the export in a process of its own."""
    _check_data(quantize, data)
    ending = ENDINGS[format]
    if ending is not None:
        outputs.check_new_file(out, "--out", ending, force)
    else:
        outputs.check_new_directory(out, "--out", force)
    from keras_structsparse.cli.files import load_model
    from keras_structsparse.export.verified import export as write

    network = load_model(model)
    inputs = None if data is None else _inputs(network, data, data_dir, images)
    mode = None if quantize == "none" else quantize
    done = write(network, out, format, quantize=mode, representative=inputs, fold=fold)
    typer.echo(str(done))


def _check_data(quantize: str, data: str | None) -> None:
    """Raise a usage error unless data are given where they are used, and exist."""
    if (data is not None) != (quantize == "int8"):
        received = "no --data" if data is None else f"--data with --quantize {quantize}"
        raise typer.BadParameter(f"expected --data with --quantize int8. Received: {received}")
    if data is not None:
        outputs.check_data(data, "--data")


def _inputs(network: keras.Model, data: str, data_dir: Path | None, images: ImageOptions) -> Any:
    """Training images, of which streams are shuffled."""
    from keras_structsparse.data.loading import for_model
    from keras_structsparse.training.heads import image_side

    found = for_model(data, data_dir, images, BATCH, side=image_side(network)).train
    return found[0] if isinstance(found, tuple) else found
