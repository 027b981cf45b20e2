"""SparsityLogger: widths, kernel sizes and multiply-adds in the logs of every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse._validation import nonnegative, one_of
from keras_structsparse.graph.kernel_axes import kernel_of
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.estimate import Estimate
from keras_structsparse.profiling.kernel_reader import KernelReader
from keras_structsparse.profiling.profile import profile
from keras_structsparse.regularizers.attachment import regularizers_of
from keras_structsparse.surgery.kernel_provenance import Ancestry
from keras_structsparse.surgery.plans import Plan


class SparsityLogger(keras.callbacks.Callback):
    """Add widths, sizes, multiply-adds and penalties to the logs of every epoch.

    For each ungrouped convolution and dense layer, here ``conv2``, every epoch has the entries:

    - ``conv2/width``: number of remaining kernels (11);
    - ``conv2/size_0``, ``conv2/size_1``, ...: number of kernels of each possible size;
    - ``conv2/multiply_adds``: multiply-adds (10) that surgery would leave, estimated without
      carrier channels;
    - ``conv2/correlation``: mean absolute correlation over all pairs of remaining kernels; nan if
      fewer than two remain;
    - ``conv2/penalty``: penalty of the layer, if it is regularized.

    The entries of the whole network are ``total/width``, ``total/multiply_adds``,
    ``total/multiply_adds_fraction`` and ``total/penalty``. The latter is there as ``penalty`` too,
    and as ``val_penalty`` beside ``val_loss``: under :class:`~keras_structsparse.Proximal` the loss
    is that of the data alone.

    Callbacks are called in the order of their list: place this one before ``CSVLogger`` and
    ``TensorBoard``, which see only entries that are in the logs by then. Keras' history and
    progress bar come last; the bar would print all entries, so train with ``verbose=0``.

    Args:
        tau: The threshold on group norms.
        groups: "half_ring" for all sizes from 0 to s, "ring" for 0 and every second size.

    Raises:
        ValueError: ``tau`` is negative or not finite, or ``groups`` is unknown.

    Examples:
        >>> callbacks = [SparsityLogger(), keras.callbacks.CSVLogger("log.csv")]
        >>> # model.fit(x, y, epochs=20, callbacks=callbacks, verbose=0)
    """

    def __init__(self, tau: float = 1e-3, groups: str = "half_ring") -> None:
        super().__init__()
        self.tau = nonnegative("tau", tau)
        one_of("groups", groups, ("half_ring", "ring"))
        self.groups = groups

    def on_train_begin(self, logs: Any = None) -> None:
        """Read the graph and the regularizers of the model."""
        found = PrunableLayers.of(self.model)
        self._whole = self._reader = KernelReader(found)
        self._counting = Estimate.of(found)
        self._regularizers = regularizers_of(found)
        self._names = tuple(self._regularizers)
        self._ancestry = Ancestry.of(self.model)
        self._base = profile(found).multiply_adds

    def on_shrink(self, model: keras.Model, ancestry: Ancestry) -> None:
        """Continue with a pruned network; entries keep the layer names of the first network."""
        found = PrunableLayers.of(model)
        self._reader, self._ancestry = KernelReader(found), ancestry
        self._regularizers = regularizers_of(found)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Add the entries to the logs."""
        if logs is not None:
            entries = self._entries()
            logs.update(entries)
            logs["penalty"] = entries["total/penalty"]
            if "val_loss" in logs:
                logs["val_penalty"] = entries["total/penalty"]

    def _entries(self) -> dict[str, float]:
        reader = self._reader
        state = reader.state()
        own = reader.sizes(state, self.tau, self.groups)
        left = self._ancestry.of_base(Plan({n: sizes.tolist() for n, sizes in own.items()})).sizes
        work = self._counting.remaining(left)
        penalties = dict.fromkeys(self._names, 0.0)
        for name, regularizer in self._regularizers.items():
            kernel = kernel_of(reader.layers[name])
            if kernel.trainable:
                penalties[self._base_name(name)] = float(regularizer.penalty(kernel))
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
        """Name of a layer in the network that the training began with."""
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
