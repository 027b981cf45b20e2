"""Unique names for the layers of a rebuilt network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from keras_structsparse.graph.functional_graph import Call


class LayerNames:
    """Gives unique layer names: calls keep theirs if possible, derived names avoid all others.

    Args:
        calls: All calls of the graph. In the name of a call of a nested model, "_" replaces "/".
        taken: Names of the inputs of the graph, which keep them.

    Attributes:
        of_call: The name for the layer of each call, by ``id`` of the call.
    """

    def __init__(self, calls: Sequence[Call], taken: Iterable[str] = ()) -> None:
        self._used = set(taken)
        # Names without a slash first, so that the model's own layers always keep theirs.
        ordered = sorted(calls, key=lambda call: "/" in call.name)
        self.of_call = {id(call): self._unused(call.name.replace("/", "_")) for call in ordered}

    def derive(self, name: str, suffix: str) -> str:
        """A new name ``name_suffix``, with "_" appended while it is in use."""
        return self._unused(f"{name}_{suffix}")

    def _unused(self, name: str) -> str:
        while name in self._used:
            name += "_"
        self._used.add(name)
        return name
