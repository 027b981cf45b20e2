"""Write what becomes of the kernels into the logs of every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse._validation import nonnegative, require
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.estimate import Estimate
from keras_structsparse.profiling.kernel_reader import KernelReader
from keras_structsparse.profiling.profile import profile
from keras_structsparse.regularizers.attachment import regularizers_of
from keras_structsparse.surgery.kernel_provenance import Ancestry
from keras_structsparse.surgery.plans import Plan


class SparsityLogger(keras.callbacks.Callback):
    """Add widths, sizes, multiply-adds and penalties to the logs of every epoch.

    For each ungrouped convolution and dense layer ``conv2``, at every epoch the same names:

    - ``conv2/width``: the kernels that are left (eq. 11);
    - ``conv2/size_0``, ``conv2/size_1``, ...: how many kernels have each size they can have;
    - ``conv2/multiply_adds``: what surgery would leave of it (eq. 10), estimated without carriers
      of constants;
    - ``conv2/correlation``: the mean absolute correlation of the kernels that are left, in pairs;
      nan where fewer than two are left;
    - ``conv2/penalty``: its part of the loss, if it is regularized;

    and of the whole network ``total/width``, ``total/multiply_adds``,
    ``total/multiply_adds_fraction`` and ``total/penalty``.

    Callbacks are called in the order of their list: place it before ``CSVLogger`` and
    ``TensorBoard``, which see only what is in the logs by then. Keras' own history and progress bar
    come last; the bar would print all of it, so train with ``verbose=0``.

    Args:
        tau: The threshold on group norms.
        groups: "half_ring" for sizes 0..s, "ring" for 0 and every second size.

    Raises:
        ValueError: ``tau`` is negative or not finite, or ``groups`` is unknown.

    Examples:
        >>> callbacks = [SparsityLogger(), keras.callbacks.CSVLogger("log.csv")]
        >>> # model.fit(x, y, epochs=20, callbacks=callbacks, verbose=0)
    """

    def __init__(self, tau: float = 1e-3, groups: str = "half_ring") -> None:
        super().__init__()
        self.tau = nonnegative("tau", tau)
        require("groups", groups, ("half_ring", "ring"))
        self.groups = groups

    def on_train_begin(self, logs: Any = None) -> None:
        """Read the network."""
        found = PrunableLayers.of(self.model)
        self._whole = self._reader = KernelReader(found)
        self._counting = Estimate.of(found)
        self._regularizers = regularizers_of(found)
        self._names = tuple(self._regularizers)
        self._ancestry = Ancestry.of(self.model)
        self._base = profile(found).multiply_adds

    def on_shrink(self, model: keras.Model, ancestry: Ancestry) -> None:
        """Go on with what is left of the network, and report of the whole one's layers."""
        found = PrunableLayers.of(model)
        self._reader, self._ancestry = KernelReader(found), ancestry
        self._regularizers = regularizers_of(found)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Fill the logs."""
        if logs is not None:
            logs.update(self._entries())

    def _entries(self) -> dict[str, float]:
        reader = self._reader
        state = reader.state()
        own = reader.sizes(state, self.tau, self.groups)
        left = self._ancestry.of_base(Plan({n: sizes.tolist() for n, sizes in own.items()})).sizes
        work = self._counting.remaining(left)
        penalties = dict.fromkeys(self._names, 0.0)
        for name, regularizer in self._regularizers.items():
            penalties[self._base_name(name)] = float(regularizer(reader.layers[name].kernel))
        found: dict[str, float] = {}
        for name, sizes in left.items():
            found |= self._layer(name, np.array(sizes), work.get(name, 0), penalties)
        for name, value in reader.correlations(state, own).items():
            found[f"{self._base_name(name)}/correlation"] = value
        total = sum(work.values())
        return found | {
            "total/width": float(sum(size > 0 for sizes in left.values() for size in sizes)),
            "total/multiply_adds": float(total),
            "total/multiply_adds_fraction": total / self._base,
            "total/penalty": sum(penalties.values()),
        }

    def _base_name(self, name: str) -> str:
        """What a layer is called in the network that the training began with."""
        return self._ancestry.layers[name][0] if name in self._ancestry.layers else name

    def _layer(
        self, name: str, sizes: Array, work: int, penalties: Mapping[str, float]
    ) -> dict[str, float]:
        counts = {
            f"{name}/size_{size}": float(np.sum(sizes == size))
            for size in self._whole.reached(name, self.groups)
        }
        penalty = {f"{name}/penalty": penalties[name]} if name in penalties else {}
        return {
            f"{name}/width": float(np.sum(sizes > 0)),
            **counts,
            f"{name}/multiply_adds": float(work),
            f"{name}/correlation": float("nan"),
            **penalty,
        }
