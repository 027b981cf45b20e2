"""Train a network with a new head: first the head alone, then all of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_structsparse._files import new_directory, write_text
from keras_structsparse._typing import StrPath
from keras_structsparse.errors import OutputError
from keras_structsparse.export.formats import save_model
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.graph.model_files.loading import load_model
from keras_structsparse.training.callbacks.stop_on_nan import StopOnNaN
from keras_structsparse.training.heads import NUMBERS, with_head
from keras_structsparse.training.shrink.checkpoints import fingerprint
from keras_structsparse.training.shrink.method import suited_rate
from keras_structsparse.training.training_data import Data, TrainingData

FROZEN_EPOCHS = 3
"""The largest number of epochs in which only a new head is trained."""

FROZEN_RATE = 1e-3
"""The learning rate of Adam in these epochs, that of Keras."""

STORED, ORIGIN = "with_head.keras", "with_head.json"
"""The trained network in a directory, and what it was made of."""


def trained_with_head(
    model: keras.Model,
    classes: int,
    train: Data,
    validation: Data | None = None,
    epochs: int = 10,
    batch_size: int = 32,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    workdir: StrPath | None = None,
) -> keras.Model:
    """Give a network a new head, train that alone and then all of the network.

    At first the other layers are frozen, and their normalisations compute as in inference. The
    learning rate of the other epochs suits the weights and falls to 0, as for
    :func:`keras_structsparse.shrink`.

    Args:
        model: The network; it is not changed.
        classes: Number of classes.
        train: Images and class numbers, as for :func:`keras_structsparse.shrink`.
        validation: Data to evaluate after every epoch.
        epochs: Number of epochs in all, at least 2.
        batch_size: Examples per step, for arrays.
        callbacks: More callbacks.
        workdir: A new or empty directory for the trained network, or one that an earlier call
            made: then the network is read from there.

    Returns:
        The network, compiled with its loss and accuracy.

    Raises:
        ModelError: As for :func:`with_head`.
        OutputError: ``workdir`` holds something else, or the network of another model.

    Examples:
        >>> import numpy as np
        >>> base = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3)])
        >>> data = np.ones((16, 8, 8, 1)), np.arange(16) % 2
        >>> trained_with_head(base, 2, data, epochs=2).output_shape
        (None, 2)
    """
    folder = None if workdir is None else new_directory(workdir, "workdir")
    origin = {"model": fingerprint(model), "classes": classes, "epochs": epochs}
    text = json.dumps({**origin, "batch_size": batch_size}) + "\n"
    if folder is not None and (folder / ORIGIN).exists():
        return _stored(folder, text)
    whole = _trained(model, classes, train, validation, epochs, batch_size, callbacks)
    if folder is not None:
        save_model(whole, folder / STORED)
        write_text(folder / ORIGIN, text)
    return whole


def _stored(folder: Path, text: str) -> keras.Model:
    if (folder / ORIGIN).read_text(encoding="utf-8") != text:
        raise OutputError(
            "workdir: expected a directory of this model and these settings. Received: "
            f"{folder}, which belongs to others. Choose another one"
        )
    return _compiled(load_model(folder / STORED), keras.optimizers.Adam())


def _trained(
    model: keras.Model,
    classes: int,
    train: Data,
    validation: Data | None,
    epochs: int,
    batch_size: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> keras.Model:
    alone = frozen_epochs(epochs)
    frozen, whole = copy_model(model), with_head(copy_model(model), classes)
    frozen.trainable = False
    first = with_head(frozen, classes)
    data = TrainingData.of(train, batch_size)
    _compiled(first, keras.optimizers.Adam(FROZEN_RATE))
    _fit(first, data, validation, batch_size, callbacks, 0, alone)
    whole.layers[-1].set_weights(first.layers[-1].get_weights())
    steps = data.steps * (epochs - alone)
    rate = keras.optimizers.schedules.CosineDecay(suited_rate(whole, steps), steps)
    _compiled(whole, keras.optimizers.Adam(rate))
    _fit(whole, data, validation, batch_size, callbacks, alone, epochs)
    return whole


def frozen_epochs(epochs: int) -> int:
    """The number of epochs in which only a new head is trained.

    Args:
        epochs: The number of all epochs, at least 2.

    Examples:
        >>> frozen_epochs(2), frozen_epochs(20)
        (1, 3)
    """
    return min(FROZEN_EPOCHS, epochs // 2)


def _fit(
    model: keras.Model,
    data: TrainingData,
    validation: Any,
    batch_size: int,
    callbacks: Sequence[keras.callbacks.Callback],
    start: int,
    stop: int,
) -> None:
    model.fit(
        data.x,
        data.y,
        validation_data=validation,
        initial_epoch=start,
        epochs=stop,
        callbacks=[StopOnNaN(), *callbacks],
        verbose=0,
        **data.options(batch_size, True),
    )


def _compiled(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> keras.Model:
    model.compile(optimizer, NUMBERS, metrics=["accuracy"])
    return model
