"""Rebuild a network without what a plan removes."""

from __future__ import annotations

import keras
import numpy as np

from keras_structsparse._typing import Array, Tensor
from keras_structsparse._validation import positive_int
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.channels import weight_provenance
from keras_structsparse.graph.channels.costs import Costs, Realization, check_realize, realizations
from keras_structsparse.graph.channels.propagation import Step, Walk, walk
from keras_structsparse.graph.channels.rule import Channels, Piece
from keras_structsparse.graph.cloning import clone
from keras_structsparse.graph.prunable_layers import ModelLike, PrunableLayers
from keras_structsparse.surgery.channel_selection import ChannelSelection, select_channels
from keras_structsparse.surgery.plans import Masks, Plan, masks
from keras_structsparse.surgery.plans import plan as read_plan

CONSTANTS = ("exact", "interior", "drop")


def prune(
    model: ModelLike,
    plan: Plan | None = None,
    constants: str = "exact",
    *,
    tau: float | None = None,
    realize: str = "auto",
    costs: Costs | None = None,
    round_to: int = 1,
) -> keras.Model:
    """Rebuild a model without the kernels, rings and layers that a plan removes.

    The result computes exactly what ``masked(model, plan)`` computes, for every input, whatever
    the biases, normalisations and activations: what a removed channel leaves behind as a constant
    goes into the bias of its readers, or is carried by one constant channel where a border forbids
    that.

    Args:
        model: A functional or built Sequential model; it is not changed.
        plan: The plan; or give ``tau``.
        constants: "exact"; "interior" puts constants into the bias as if padded convolutions had
            no border; "drop" forgets them. The last two change what the network computes.
        tau: Stands for ``plan(model, tau, round_to=round_to)``.
        realize: What becomes of a layer whose kernels have several sizes. "crop": one convolution
            of the largest; "split": the fewest multiply-adds, so one convolution per size and a
            concatenation; "none": the original size; "auto": whichever costs least, also in
            between, where every operation more counts as well.
        costs: What operations cost on the machine that the result is for, as
            :func:`keras_structsparse.calibrate` measures it; rough numbers unless given.
        round_to: What the widths of convolutions and dense layers are rounded up to multiples of,
            where the layer has so many kernels: runtimes compute channels in blocks, and a width
            in between may take longer than the next multiple. Kernels that the plan removes stay
            as zeros for it, so the outputs are the same; ``compare`` says how many.

    Returns:
        A plain, uncompiled Keras model that needs only Keras to load. Layers keep their names.

    Raises:
        DeadNetworkError: The output would not depend on the input any more.
        ModelError: The model has no graph.
        PlanError: The plan does not fit the model.
        ValueError: ``constants`` or ``realize`` is unknown, ``round_to`` is no whole number above
            0, or not exactly one of ``plan`` and ``tau`` is given.

    Examples:
        >>> inputs = keras.Input((8, 8, 1))
        >>> x = keras.layers.Conv2D(4, 5, padding="same", name="conv")(inputs)
        >>> x = keras.layers.GlobalAveragePooling2D()(x)
        >>> model = keras.Model(inputs, keras.layers.Dense(2)(x))
        >>> pruned = prune(model, Plan({"conv": (3, 0, 2, 0)}))
        >>> tuple(pruned.get_layer("conv").kernel.shape)
        (3, 3, 1, 2)
    """
    if constants not in CONSTANTS:
        raise ValueError(f"constants: expected one of {CONSTANTS}. Received: {constants!r}")
    check_realize(realize)
    if costs is not None and not isinstance(costs, Costs):
        raise TypeError(f"costs: expected keras_structsparse.Costs. Received: {costs!r}")
    block = positive_int("round_to", round_to)
    if (plan is None) == (tau is None):
        raise ValueError(f"prune: expected plan or tau. Received: plan={plan!r}, tau={tau!r}")
    found = PrunableLayers.of(model)
    chosen = read_plan(found, tau, round_to=block) if tau is not None else plan
    if not isinstance(chosen, Plan):
        raise TypeError(f"plan: expected a keras_structsparse.Plan. Received: {chosen!r}")
    realization = realizations(costs or Costs(), block)[realize]
    builder, notes = _prepared(found, chosen, constants, realization, block)
    pruned = functional_graph.rebuild(found.graph, builder)
    functional_graph.note(pruned, notes)
    weight_provenance.settle(found.model, pruned)
    return pruned


def _prepared(
    found: PrunableLayers,
    plan: Plan,
    constants: str,
    realization: Realization,
    round_to: int,
) -> tuple[_Builder, tuple[str, ...]]:
    """What makes the new layers, and what to note. It alone holds the masked weights."""
    changes = masks(found, plan)
    walked = walk(found.graph, changes, constants, realization)
    selection = select_channels(found.graph, walked, round_to)
    notes = _collect_notes(walked) + _filling_notes(walked, selection, round_to)
    return _Builder(walked, selection, changes), notes


class _Builder:
    """Makes the new outputs of each call, once; remembers copies of layers that are shared."""

    def __init__(self, walked: Walk, selection: ChannelSelection, changes: Masks) -> None:
        self.steps = {id(step.call): step for step in walked.steps}
        self.selection = selection
        unchanged = {id(step.call.operation) for step in walked.steps if step.rule is None}
        self.changes = {key: changes[key] for key in unchanged & changes.keys()}
        self.copies: dict[int, keras.Operation] = {}
        self.orders: dict[int, Array] = {}
        self.given: dict[frozenset[int], Array] = {}
        self.shared: dict[int, tuple[list[Piece], Piece]] = {}

    def __call__(
        self, call: functional_graph.Call, tensors: list[Tensor | None]
    ) -> list[Tensor | None]:
        # Not kept any longer, as its masked weights take as much memory as the layer's own.
        step = self.steps.pop(id(call))
        if step.rule is None:
            return self._unchanged(step, tensors)
        wanted = self._wanted(step.flow.output)
        if not len(wanted):
            return [None] * len(call.outputs)
        sides = zip(call.inputs, tensors, step.site.inputs, strict=True)
        pieces = [self._piece(*side) for side in sides]
        built = self._again(step, pieces) or step.rule.build(step.site, wanted, pieces)
        if step.shared and isinstance(built, Piece):
            self.shared.setdefault(id(call.operation), ([p for p in pieces if p], built))
        results = [built] if isinstance(built, Piece) else built
        for index, piece, channels in zip(call.outputs, results, step.outputs, strict=True):
            self.orders[index] = np.arange(0) if piece is None else piece.order
            roots = self.selection.roots[channels.ids[self.orders[index]]]
            self.given.setdefault(frozenset(roots.tolist()), roots)
        return [None if piece is None else piece.tensor for piece in results]

    def _wanted(self, output: Channels) -> Array:
        """The channels that stay, in the order that they have elsewhere already.

        A concatenation has an order of its own: what is added to it had best come in that. Channels
        that are not sorted, as those of groups, keep theirs.
        """
        wanted = self.selection.wanted(output)
        ids = output.ids[wanted]
        roots = self.selection.roots[ids]
        given = self.given.get(frozenset(roots.tolist()), roots)
        once = len(np.unique(roots)) == len(roots) == len(given)
        if not once or not self.selection.rank[ids].any():
            return wanted
        return wanted[np.argsort(roots)][np.argsort(np.argsort(given))]

    def _again(self, step: Step, pieces: list[Piece | None]) -> Piece | None:
        """What an earlier call of a shared layer became, on other tensors."""
        if id(step.call.operation) not in self.shared:
            return None
        before, made = self.shared[id(step.call.operation)]
        now = [piece for piece in pieces if piece is not None]
        for old, new in zip(before, now, strict=True):
            assert np.array_equal(old.order, new.order), "selection.choose leaves them in one order"
        tensors = [piece.tensor for piece in now]
        return Piece(
            functional_graph.again([p.tensor for p in before], made.tensor, tensors), made.order
        )

    def _piece(self, index: int, tensor: Tensor | None, side: Channels) -> Piece | None:
        """A new tensor with its order; what no rule has made holds all channels in order."""
        if tensor is None:
            return None
        return Piece(tensor, self.orders.get(index, np.arange(len(side))))

    def _unchanged(self, step: Step, tensors: list[Tensor | None]) -> list[Tensor | None]:
        """The outputs of a copy of the layer, with the plan's entries set to zero."""
        operation, key = step.call.operation, id(step.call.operation)
        args, kwargs = step.call.arguments(tensors)
        if key in self.copies:
            return keras.tree.flatten(self.copies[key](*args, **kwargs))
        self.copies[key] = clone(operation, name=step.site.layer_name)
        outputs = keras.tree.flatten(self.copies[key](*args, **kwargs))
        if weights := getattr(operation, "weights", ()):
            changed = self.changes.get(key, {})
            # As arrays: JAX gives away the memory of a variable that is trained.
            values = [changed.get(w.name, keras.ops.convert_to_numpy(w)) for w in weights]
            taken = [
                weight_provenance.whole(v, operation, number) for number, v in enumerate(values)
            ]
            weight_provenance.assign(self.copies[key], taken)
        return outputs


def _collect_notes(walked: Walk) -> tuple[str, ...]:
    """One sentence for each layer that surgery could not treat."""
    sentences = []
    for step in walked.steps:
        for note in step.flow.notes:
            kind = type(step.call.operation).__name__
            sentences.append(f"layer '{step.call.name}' ({kind}): {note}")
    return tuple(dict.fromkeys(sentences))


def _filling_notes(walked: Walk, selection: ChannelSelection, round_to: int) -> tuple[str, ...]:
    """How many kernels of which layers stay only to fill a block."""
    outputs = {step.call.name: step.flow.output for step in walked.steps if step.flow.blocks}
    counts = {name: int(selection.filling[found.ids].sum()) for name, found in outputs.items()}
    filling = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    return (f"kernels kept only for widths of multiples of {round_to}: {filling}",) * bool(filling)
