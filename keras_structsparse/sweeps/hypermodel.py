"""ShrinkAfterFit: a mix-in for keras-tuner, whose trials are judged by the shrunk network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import keras

from keras_structsparse._validation import positive_int
from keras_structsparse.training.shrink.arguments import check_settings, checked_validation
from keras_structsparse.training.shrink.budget import Budget
from keras_structsparse.training.shrink.latency import Latency
from keras_structsparse.training.shrink.method import ShrinkMethod
from keras_structsparse.training.shrink.shrink import shrink
from keras_structsparse.training.training_data import TrainingData

PREFIX = "shrunk_"
"""What the names of the metrics of the shrunk network begin with."""

NOT_SHRUNK = ("validation_split", "sample_weight", "class_weight")
"""Arguments of ``fit`` that :func:`keras_structsparse.shrink` does not take."""


class ShrinkAfterFit:
    """A mix-in for ``keras_tuner.HyperModel``: train, shrink to a budget, judge what is left.

    ``fit`` trains the model as the class beside it does, then calls
    :func:`keras_structsparse.shrink`, and returns the last metrics of the training together with
    the validation metrics of the shrunk network: ``shrunk_loss``, ``shrunk_accuracy`` and so on,
    and the shares of the cost that are left, ``shrunk_multiply_adds_fraction`` and
    ``shrunk_params_fraction``. So ``keras_tuner.Objective("shrunk_accuracy", "max")`` finds the
    network that is best when it is small. keras-tuner stores the trained network, not the shrunk
    one: call ``kss.shrink`` again for the best one.

    ``tuner.search`` needs training data and ``validation_data`` as ``kss.shrink`` takes them, and
    has no ``validation_split``, ``sample_weight`` or ``class_weight``; data sets give weights of
    examples themselves. A network that cannot be shrunk is a failed trial.

    Args:
        *args: Arguments of the class beside it.
        multiply_adds: As for :func:`keras_structsparse.shrink`.
        params: As for :func:`keras_structsparse.shrink`.
        latency: As for :func:`keras_structsparse.shrink`.
        max_drop: As for :func:`keras_structsparse.shrink`; the objective is then
            ``keras_tuner.Objective("shrunk_multiply_adds_fraction", "min")``.
        shrink_epochs: Number of epochs of the shrinking, at least 2.
        method: As for :func:`keras_structsparse.shrink`.
        **kwargs: Arguments of the class beside it.

    Raises:
        ValueError: An argument is out of its range, or not exactly one budget is given. From
            ``fit``: data or arguments that cannot be used; it ends the search.

    Examples:
        >>> import keras_tuner
        >>> class Networks(ShrinkAfterFit, keras_tuner.HyperModel):
        ...     def build(self, hp):
        ...         width = hp.Int("width", 4, 32)
        ...         hidden = keras.layers.Dense(width, activation="relu")
        ...         model = keras.Sequential([keras.Input((5,)), hidden, keras.layers.Dense(1)])
        ...         model.compile("adam", "mse")
        ...         return model
        >>> networks = Networks(params=0.5, shrink_epochs=2)
        >>> # objective = keras_tuner.Objective("shrunk_loss", "min")
        >>> # tuner = keras_tuner.RandomSearch(networks, objective, max_trials=10)
        >>> # tuner.search(x, y, validation_data=(x_val, y_val), epochs=5)
    """

    def __init__(
        self,
        *args: Any,
        multiply_adds: float | None = None,
        params: float | None = None,
        latency: Latency | None = None,
        max_drop: float | None = None,
        shrink_epochs: int = 10,
        method: ShrinkMethod | None = None,
        **kwargs: Any,
    ) -> None:
        self.budget = Budget(
            multiply_adds=multiply_adds, params=params, latency=latency, max_drop=max_drop
        )
        self.shrink_epochs = positive_int("shrink_epochs", shrink_epochs)
        self.method = ShrinkMethod() if method is None else method
        check_settings(None, self.method, (), None)
        self.method.removal_epochs(self.shrink_epochs)
        super().__init__(*args, **kwargs)

    def fit(self, hp: Any, model: keras.Model, x: Any = None, y: Any = None, **options: Any) -> Any:
        """Train, shrink and evaluate the network of a trial.

        Args:
            hp: The hyperparameters of the trial.
            model: The compiled network.
            x: Inputs, or a data set of inputs and targets.
            y: Targets.
            **options: More arguments of ``model.fit``.

        Returns:
            The metrics by name.

        Raises:
            keras_tuner.errors.FatalValueError: The data or an argument cannot be used.
        """
        train, size = x if y is None else (x, y), options.get("batch_size") or 32
        validation = _checked(train, size, options)
        trained = super().fit(hp, model, x, y, **options)  # type: ignore[misc]
        result = shrink(
            model,
            train,
            validation,
            **vars(self.budget),
            epochs=self.shrink_epochs,
            batch_size=size,
            method=self.method,
            verbose=0,
        )
        found = result.comparison
        return {
            **_last(trained),
            **{f"{PREFIX}{name}": value for name, value in result.after.items()},
            f"{PREFIX}multiply_adds_fraction": found.multiply_adds_fraction,
            f"{PREFIX}params_fraction": found.params_fraction,
        }


def _checked(train: Any, batch_size: int, options: Mapping[str, Any]) -> Any:
    """The validation data, before a training that would be for nothing."""
    for name in NOT_SHRUNK:
        if options.get(name) is not None:
            _fatal(f"fit: expected no {name}, which kss.shrink does not take. Received one")
    validation = options.get("validation_data")
    if validation is None:
        _fatal("fit: expected validation_data, to judge the shrunk network. Received: None")
    try:
        TrainingData.of(train, batch_size)
        return checked_validation(validation, batch_size)
    except ValueError as error:
        _fatal(str(error))


def _fatal(text: str) -> NoReturn:
    """Raise what ends a search: all other errors are those of a trial to keras-tuner."""
    from keras_tuner.errors import FatalValueError

    raise FatalValueError(text)


def _last(trained: Any) -> dict[str, float]:
    """The metrics of the last epoch of a training."""
    if isinstance(trained, keras.callbacks.History):
        return {name: float(values[-1]) for name, values in trained.history.items()}
    return dict(trained) if isinstance(trained, Mapping) else {}
