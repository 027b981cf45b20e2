"""Where the weights and layers of a pruned model come from, as a value that is saved with it.

Surgery writes a :class:`Provenance` into the model that it makes, as text that Keras saves and
loads (:mod:`keras_structsparse.graph.embedded_text`). So a model and its pruned model are still
known to belong together in another process, by the names and shapes of their weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_structsparse.errors import ModelError, PlanError
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.graph.embedded_text import embed, embedded
from keras_structsparse.surgery.index_ranges import IndexTable, Indices
from keras_structsparse.surgery.model_structure import Structure

FORMAT = "keras_structsparse.surgery.provenance/1"


@dataclass(frozen=True)
class Source:
    """The entries of an old weight that a new weight holds.

    Attributes:
        layer: Name of the old layer, with those of the nested models around it.
        number: The position of the weight among those of that layer.
        places: For each axis the indices of the entries in the old weight.
    """

    layer: str
    number: int
    places: tuple[Indices, ...]

    def of(self, earlier: Source) -> Source:
        """The same entries in the weight that the old weight was made of."""
        pairs = zip(earlier.places, self.places, strict=True)
        places = tuple(tuple(old[i] for i in new) for old, new in pairs)
        return Source(earlier.layer, earlier.number, places)


@dataclass(frozen=True)
class Provenance:
    """Where the weights and layers of a pruned model come from.

    Attributes:
        source: The structure of the model before surgery.
        weights: By name of the new layer, the source of each of its weights; None for a new weight,
            such as the bias of a layer that had none.
        layers: By name of the new layer, the name of the old layer that it does the work of. All
            parts of a layer that was split belong to that layer.
        notes: A sentence for each layer that surgery kept as it was, and why.
        earlier: The provenance of the source, if it was pruned itself.
    """

    source: Structure
    weights: Mapping[str, tuple[Source | None, ...]]
    layers: Mapping[str, str]
    notes: tuple[str, ...] = ()
    earlier: Provenance | None = None

    @property
    def from_earlier(self) -> Provenance | None:
        """The provenance from the model that the source was pruned from; None if it was not."""
        if self.earlier is None:
            return None
        old = self.earlier
        weights = {
            name: tuple(s and _through(old, s) for s in own) for name, own in self.weights.items()
        }
        layers = {n: old.layers[via] for n, via in self.layers.items() if via in old.layers}
        return Provenance(old.source, weights, layers, self.notes, old.earlier)

    def fits(self, pruned: Structure) -> bool:
        """Whether the weights of a model still are those that surgery made."""
        shapes = {name: [shape for _, shape in own] for name, own in pruned.layers.items() if own}
        own = {name: sources for name, sources in self.weights.items() if sources}
        return shapes.keys() == own.keys() and all(
            len(shapes[name]) == len(sources)
            and all(
                source is None or tuple(map(len, source.places)) == shape
                for source, shape in zip(sources, shapes[name], strict=True)
            )
            for name, sources in own.items()
        )

    def to_json(self) -> str:
        """Compact JSON text, which :meth:`from_json` reads."""
        table = IndexTable()
        content = {"format": FORMAT, **_to_tree(self, table), "indices": table.ranges}
        return json.dumps(content, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Provenance:
        """Read what :meth:`to_json` wrote.

        Raises:
            PlanError: The text is something else.
        """
        try:
            content = json.loads(text)
            if content["format"] == FORMAT:
                return _from_tree(content, IndexTable(content["indices"]))
        except BROKEN as error:
            raise PlanError(
                f"provenance: expected {FORMAT}. Received other text: {error}"
            ) from error
        raise PlanError(f"provenance: expected {FORMAT}. Received: {content['format']!r}")


def _through(earlier: Provenance, source: Source) -> Source | None:
    found = earlier.weights.get(source.layer, ())
    before = found[source.number] if source.number < len(found) else None
    return None if before is None else source.of(before)


BROKEN = (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError)
"""What reading a damaged record raises."""


def _to_tree(provenance: Provenance, table: IndexTable) -> dict[str, Any]:
    def entry(source: Source | None) -> Any:
        return source and [source.layer, source.number, [table.add(p) for p in source.places]]

    old = provenance.earlier
    return {
        "source": {"name": provenance.source.name, "layers": dict(provenance.source.layers)},
        "weights": {name: [entry(s) for s in own] for name, own in provenance.weights.items()},
        "layers": dict(provenance.layers),
        "notes": list(provenance.notes),
        "earlier": None if old is None else _to_tree(old, table),
    }


def _from_tree(content: Any, table: IndexTable) -> Provenance:
    source, old = content["source"], content["earlier"]
    shapes = {
        name: tuple((weight, tuple(shape)) for weight, shape in own)
        for name, own in source["layers"].items()
    }

    def entry(own: Any) -> Source | None:
        if own is None:
            return None
        layer, number, places = own[0], own[1], tuple(table[i] for i in own[2])
        _, shape = shapes[layer][number]
        inside = (
            min(p, default=0) >= 0 and max(p, default=-1) < n
            for p, n in zip(places, shape, strict=True)
        )
        if number < 0 or not all(inside):
            raise ValueError(f"entries of '{layer}' that it does not have")
        return Source(layer, number, places)

    return Provenance(
        Structure(str(source["name"]), shapes),
        {name: tuple(map(entry, own)) for name, own in content["weights"].items()},
        {str(name): str(old_layer) for name, old_layer in content["layers"].items()},
        tuple(map(str, content["notes"])),
        None if old is None else _from_tree(old, table),
    )


def record(pruned: keras.Model, provenance: Provenance) -> None:
    """Write a provenance into a pruned model, in place of the one that it has."""
    embed(pruned, provenance.to_json())


def recorded(model: keras.Model) -> Provenance | None:
    """The provenance of a pruned model, also of one that was saved and loaded.

    Args:
        model: Any model.

    Returns:
        The provenance; None if surgery did not make the model, if a version that recorded nothing
        did, or if its weights have other shapes since.
    """
    text = embedded(model)
    if text is None:
        return None
    try:
        found = Provenance.from_json(text)
        return found if found.fits(Structure.of(functional_graph.read(model))) else None
    except (PlanError, ModelError):
        return None


def copy_recorded(model: keras.Model) -> keras.Model:
    """Copy a model with its provenance, which other copies lose.

    Args:
        model: A model with a graph.

    Returns:
        The copy; it is not compiled.
    """
    copy, found = copy_model(model), recorded(model)
    if found is not None:
        record(copy, found)
    return copy


def from_base(model: keras.Model) -> Provenance | None:
    """The provenance from the first model, before all cuts; None as for :func:`recorded`."""
    found = recorded(model)
    while found is not None and found.from_earlier is not None:
        found = found.from_earlier
    return found


def notes(model: keras.Model) -> tuple[str, ...]:
    """What surgery kept as it was, and why.

    Args:
        model: A model that :func:`keras_structsparse.prune` returned, also a loaded one.

    Returns:
        One sentence per layer; empty for any other model.
    """
    found = recorded(model)
    return () if found is None else found.notes
