"""Which kernels of a base architecture a pruned network still has, after one cut or several.

Plans, figures and model cards number the kernels of the base architecture. A network that is pruned
while it trains has fewer layers and kernels after every cut, so its own plan has other numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_structsparse._records import check_format, parse_json, read_record, shortened
from keras_structsparse.errors import PlanError
from keras_structsparse.graph.kernel_axes import axes_of, kernel_of, plain_shape
from keras_structsparse.graph.prunable_layers import ModelLike, PrunableLayers
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.surgery.weight_origins import between

FORMAT = "keras_structsparse.ancestry/1"


@dataclass(frozen=True)
class Ancestry:
    """For every prunable layer of a network, which kernels of the base architecture it has.

    Attributes:
        layers: By name of the layer, the name of the base architecture's layer, and for each kernel
            its number there.
        widths: By name of the base architecture's layers, their numbers of kernels.

    Raises:
        PlanError: A layer has a kernel that the one of the base architecture lacks.

    Examples:
        >>> left = Ancestry({"conv": ("conv", (0, 3))}, {"conv": 4, "branch": 2})
        >>> dict(left.of_base(Plan({"conv": (3, 1)})).sizes)
        {'conv': (3, 0, 0, 1), 'branch': (0, 0)}
    """

    layers: Mapping[str, tuple[str, tuple[int, ...]]]
    widths: Mapping[str, int]

    def __post_init__(self) -> None:
        for name, (base, numbers) in self.layers.items():
            width = self.widths.get(base)  # Layers that surgery made may be of no base.
            if width is not None and not all(0 <= number < width for number in numbers):
                raise PlanError(
                    f"ancestry: layer '{name}': expected kernels of the {width} of '{base}'. "
                    f"Received: {shortened(list(numbers))}"
                )

    @classmethod
    def of(cls, model: ModelLike) -> Ancestry:
        """The ancestry of a base architecture, whose kernels are its own.

        Args:
            model: A functional or built Sequential model, or its prunable layers.

        Raises:
            ModelError: The model has no graph.
        """
        layers = PrunableLayers.of(model).layers
        widths = {name: plain_shape(layer)[-1] for name, layer in layers.items()}
        return cls({name: (name, tuple(range(n))) for name, n in widths.items()}, widths)

    @classmethod
    def between(cls, model: keras.Model, pruned: keras.Model) -> Ancestry:
        """The ancestry of a pruned model, with the model before surgery as the base architecture.

        The parts of a layer that surgery split come from that layer. Layers that surgery added have
        no ancestor and are left out.

        Args:
            model: The model before, or a loaded copy.
            pruned: What :func:`keras_structsparse.prune` made of it, also a loaded one.

        Raises:
            ModelError: ``model`` has no graph.
            ValueError: ``pruned`` was not made from ``model``.
        """
        found = between(model, pruned)
        old = PrunableLayers.of(model).layers
        layers = {}
        for name, layer in PrunableLayers.of(pruned).layers.items():
            source = found.weights[name][_kernel_number(layer)]
            if source is None or source.layer not in old:
                continue
            if source.number == _kernel_number(old[source.layer]):
                shape = kernel_of(old[source.layer]).shape
                numbers = axes_of(layer).numbers(source.places, shape)
                layers[name] = source.layer, numbers
        return cls(layers, cls.of(model).widths)

    def followed_by(self, later: Ancestry) -> Ancestry:
        """The ancestry after one more cut, in kernels of the first base architecture.

        Args:
            later: The later ancestry, with that network as the base architecture.

        Examples:
            >>> first = Ancestry({"conv": ("conv", (0, 2, 3))}, {"conv": 4})
            >>> then = Ancestry({"conv": ("conv", (1, 2))}, {"conv": 3})
            >>> first.followed_by(then).layers
            {'conv': ('conv', (2, 3))}
        """
        layers = {}
        for name, (middle, numbers) in later.layers.items():
            if middle in self.layers:
                base, own = self.layers[middle]
                layers[name] = base, tuple(own[number] for number in numbers)
        return Ancestry(layers, self.widths)

    def left_of(self, plan: Plan) -> Plan:
        """The plan that the network was pruned by, without kernels that it lost in addition.

        Surgery also removes kernels that the plan keeps if no layer reads them any more.

        Args:
            plan: A plan for all layers of the base architecture.

        Returns:
            The plan with size 0 for every kernel that the network does not have.

        Examples:
            >>> left = Ancestry({"conv": ("conv", (0, 1, 3))}, {"conv": 4, "branch": 2})
            >>> dict(left.left_of(Plan({"conv": (3, 0, 0, 1), "branch": (3, 3)})).sizes)
            {'conv': (3, 0, 0, 1), 'branch': (0, 0)}
        """
        kept = {name: np.zeros(width, int) for name, width in self.widths.items()}
        for base, numbers in self.layers.values():
            kept[base][list(numbers)] = 1
        return Plan({n: (kept[n] * own).tolist() for n, own in plan.sizes.items() if n in kept})

    def of_base(self, plan: Plan) -> Plan:
        """Translate a plan for the network into one for the base architecture.

        Sizes are those of the supports, which a crop does not change. Kernels that the network does
        not have get size 0.

        Args:
            plan: A plan for all layers of the network.

        Raises:
            PlanError: A layer is missing, or has another number of kernels.
        """
        sizes = {name: np.zeros(width, int) for name, width in self.widths.items()}
        for name, (base, numbers) in self.layers.items():
            own = plan.sizes.get(name, ())
            if len(own) != len(numbers):
                raise PlanError(
                    f"Plan: layer '{name}' has {len(numbers)} kernels. Received {len(own)} sizes"
                )
            sizes[base][list(numbers)] = own
        return Plan({name: own.tolist() for name, own in sizes.items()})

    def to_json(self) -> str:
        """JSON text, which :meth:`from_json` reads."""
        content = {"format": FORMAT, "layers": dict(self.layers), "widths": dict(self.widths)}
        return json.dumps(content) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Ancestry:
        """Read what :meth:`to_json` wrote.

        Raises:
            PlanError: The text is something else.
        """
        try:
            content: Any = parse_json(text)
        except (TypeError, ValueError) as error:
            raise PlanError(f"ancestry: expected {FORMAT}. Received other text: {error}") from error
        check_format(content, FORMAT, "ancestry", PlanError)
        parts = {name: value for name, value in content.items() if name != "format"}
        return read_record(cls, parts, "ancestry", PlanError)


def _kernel_number(layer: keras.Layer) -> int:
    """The position of the kernel among the weights of a layer."""
    return [id(weight) for weight in layer.weights].index(id(kernel_of(layer)))
