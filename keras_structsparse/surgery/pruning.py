"""Surgery: rebuild a network without the kernels that a plan removes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import keras
import numpy as np

from keras_structsparse._typing import Array, Tensor
from keras_structsparse._validation import CONSTANTS, positive_int
from keras_structsparse.graph import bare_operations, functional_graph
from keras_structsparse.graph.channels import weight_provenance
from keras_structsparse.graph.channels.costs import Costs
from keras_structsparse.graph.channels.propagation import Step, Walk, walk
from keras_structsparse.graph.channels.rule import Channels, Piece
from keras_structsparse.graph.channels.splitting import Realization, check_realize, realizations
from keras_structsparse.graph.cloning import clone
from keras_structsparse.graph.prunable_layers import ModelLike, PrunableLayers
from keras_structsparse.graph.rebuilding import rebuild
from keras_structsparse.surgery.channel_selection import ChannelSelection, select_channels
from keras_structsparse.surgery.mask_check import Settled, changed_masks, without_mask
from keras_structsparse.surgery.model_structure import Structure
from keras_structsparse.surgery.notes import collect_notes, constant_notes, filling_notes
from keras_structsparse.surgery.plans import Masks, Plan, masks
from keras_structsparse.surgery.plans import plan as read_plan
from keras_structsparse.surgery.provenance import Provenance, Source, record, recorded


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

    The result computes the same function as ``masked(model, plan)``, for every input. A removed
    channel is constant in the masked model. Its contribution is added to the bias of its readers;
    where zero padding makes that impossible, one constant channel carries it for all removed ones.

    Args:
        model: A functional or built Sequential model; it is not changed.
        plan: The plan; or give ``tau``.
        constants: "exact"; "interior" adds constants to the bias as if convolutions had no zero
            padding; "drop" ignores them. The last two change the function of the network.
        tau: Short for ``plan=plan(model, tau, round_to=round_to)``.
        realize: How kernels of several sizes are built. "crop": one convolution of the largest
            size. "split": one per size and a concatenation, the fewest multiply-adds. "none": one
            of the original size. "auto": the lowest cost; a part may have several sizes.
        costs: The cost model of the target machine, as :func:`keras_structsparse.calibrate`
            measures it; by default rough numbers.
        round_to: Widths are rounded up to multiples of this number, if the layer has enough
            kernels, since runtimes compute channels in blocks. Removed kernels are kept as zeros
            for it, so the function does not change; ``compare`` reports how many.

    Returns:
        A plain, uncompiled Keras model that needs only Keras to load. Layers keep their names.

    Raises:
        DeadNetworkError: The output of the masked model does not depend on its input.
        ModelError: The model has no graph.
        PlanError: The plan does not fit the model.
        TypeError: ``costs`` is not a :class:`Costs`, or ``plan`` not a :class:`Plan`.
        ValueError: ``constants`` or ``realize`` is unknown, ``round_to`` is not a whole number
            >= 1, or not exactly one of ``plan`` and ``tau`` is given.

    Examples:
        >>> inputs = keras.Input((8, 8, 1))
        >>> x = keras.layers.Conv2D(4, 5, padding="same", name="conv")(inputs)
        >>> x = keras.layers.GlobalAveragePooling2D()(x)
        >>> model = keras.Model(inputs, keras.layers.Dense(2)(x))
        >>> pruned = prune(model, Plan({"conv": (3, 0, 2, 0)}))
        >>> tuple(pruned.get_layer("conv").kernel.shape)
        (3, 3, 1, 2)
    """
    check_options(constants, realize, costs)
    block = positive_int("round_to", round_to)
    found, chosen = _chosen_plan(model, plan, tau, block)
    realization = realizations(costs or Costs(), block)[realize]
    pruned, builder, notes = _rebuilt(found, chosen, constants, realization, block)
    weights = _sources(found.graph, pruned)
    layers = {name: builder.made.get(name) or _of_weights(own) for name, own in weights.items()}
    owners = {name: old for name, old in layers.items() if old}
    source, before = Structure.of(found.graph), recorded(found.model)
    record(pruned, Provenance(source, weights, owners, notes, before))
    return pruned


def check_options(constants: str, realize: str, costs: Costs | None) -> None:
    """Check these arguments of :func:`prune`, which raises the errors."""
    if constants not in CONSTANTS:
        raise ValueError(f"constants: expected one of {CONSTANTS}. Received: {constants!r}")
    check_realize(realize)
    if costs is not None and not isinstance(costs, Costs):
        raise TypeError(f"costs: expected keras_structsparse.Costs. Received: {costs!r}")


def _chosen_plan(
    model: ModelLike, plan: Plan | None, tau: float | None, round_to: int
) -> tuple[PrunableLayers, Plan]:
    """The prunable layers of the model, and the given plan or the one at ``tau``."""
    if (plan is None) == (tau is None):
        raise ValueError(f"prune: expected plan or tau. Received: plan={plan!r}, tau={tau!r}")
    found = PrunableLayers.of(model)
    chosen = read_plan(found, tau, round_to=round_to) if tau is not None else plan
    if not isinstance(chosen, Plan):
        raise TypeError(f"plan: expected a keras_structsparse.Plan. Received: {chosen!r}")
    return found, chosen


def _of_weights(sources: tuple[Source | None, ...]) -> str | None:
    """The old layer of a new one that a rule has given a name of its own."""
    return next((source.layer for source in sources if source is not None), None)


def _sources(
    network: functional_graph.Graph, pruned: keras.Model
) -> dict[str, tuple[Source | None, ...]]:
    """Where the weights of each new layer come from, by its name."""
    names = {id(call.operation): call.name for call in network.layers()}
    # Most weights have some of their index arrays in common.
    known: dict[bytes, tuple[int, ...]] = {}

    def indices(places: Array) -> tuple[int, ...]:
        return known.setdefault(places.tobytes(), tuple(places.tolist()))

    def source(taken: weight_provenance.Taken | None) -> Source | None:
        if taken is None:
            return None
        places = tuple(indices(np.asarray(p, np.int64)) for p in taken.places)
        return Source(names[id(taken.operation)], taken.number, places)

    layers = [layer for layer in pruned.layers if not isinstance(layer, keras.layers.InputLayer)]
    return {layer.name: tuple(map(source, weight_provenance.collect(layer))) for layer in layers}


def _rebuilt(
    found: PrunableLayers, plan: Plan, constants: str, realization: Realization, round_to: int
) -> tuple[keras.Model, _Builder, tuple[str, ...]]:
    """The pruned model, with the masks of the original beside its tensors; builder and notes.

    Where a mask would be another one, the network is rebuilt once more without what changed it.
    """
    settled = Settled()
    while True:
        options = constants, realization, round_to
        builder, notes = _prepared(found, plan, *options, settled)
        pruned = rebuild(found.graph, builder)
        new = {index: (tensor, builder.order(index)) for index, tensor in builder.made_of.items()}
        changed = changed_masks(found.graph, pruned, new, builder.copied)
        if not changed:
            return pruned, builder, notes
        settled = settled.after(found.graph, changed)


def _prepared(
    found: PrunableLayers,
    plan: Plan,
    constants: str,
    realization: Realization,
    round_to: int,
    settled: Settled,
) -> tuple[_Builder, tuple[str, ...]]:
    """The builder of the new layers, and the notes. Only the builder holds masked weights."""
    changes = masks(found, plan)
    walked = walk(found.graph, changes, constants, realization, settled.kept)
    selection = select_channels(found.graph, walked, round_to)
    notes = collect_notes(walked) + constant_notes(walked, selection)
    notes += filling_notes(walked, selection, round_to)
    return _Builder(walked, selection, changes, settled), notes


class _Builder:
    """Builds the new outputs of each call, once; reuses the new layers of shared ones."""

    def __init__(
        self, walked: Walk, selection: ChannelSelection, changes: Masks, settled: Settled
    ) -> None:
        self.steps = {id(step.call): step for step in walked.steps}
        self.selection = selection
        unchanged = {id(step.call.operation) for step in walked.steps if step.rule is None}
        self.changes = {key: changes[key] for key in unchanged & changes.keys()}
        self.copies: dict[int, keras.Operation] = {}
        self.orders: dict[int, Array] = {}
        self.given: dict[frozenset[int], Array] = {}
        self.shared: dict[int, tuple[list[Piece], Piece]] = {}
        self.made: dict[str, str] = {}
        self.unmasked = settled.unmasked
        self.made_of: dict[int, Tensor] = {}
        self.copied: set[int] = set()

    def __call__(
        self, call: functional_graph.Call, tensors: list[Tensor | None]
    ) -> list[Tensor | None]:
        derive = partial(self._derived, self.steps[id(call)])
        results = self._built(call, tensors)
        if id(call) in self.unmasked:
            results = [None if t is None else without_mask(t, derive("unmasked")) for t in results]
        made = zip(call.outputs, results, strict=True)
        self.made_of |= {index: tensor for index, tensor in made if tensor is not None}
        return results

    def order(self, index: int) -> Array | None:
        """The original channels that a new tensor holds; None for all of them in their order."""
        return self.orders.get(index)

    def _built(
        self, call: functional_graph.Call, tensors: list[Tensor | None]
    ) -> list[Tensor | None]:
        # Popped, since its masked weights need as much memory as those of the layer.
        step = self.steps.pop(id(call))
        self.made[step.site.layer_name] = call.name
        if step.rule is None:
            self.copied.add(id(call))
            return self._unchanged(step, tensors)
        wanted = self._wanted(step.flow.output)
        if not len(wanted):
            return [None] * len(call.outputs)
        sides = zip(call.inputs, tensors, step.site.inputs, strict=True)
        pieces = [self._piece(*side) for side in sides]
        site = replace(step.site, derive=partial(self._derived, step))
        built = self._again(step, pieces) or step.rule.build(site, wanted, pieces)
        if step.shared and isinstance(built, Piece):
            self.shared.setdefault(id(call.operation), ([p for p in pieces if p], built))
        results = [built] if isinstance(built, Piece) else built
        for index, piece, channels in zip(call.outputs, results, step.outputs, strict=True):
            self.orders[index] = np.arange(0) if piece is None else piece.order
            roots = self.selection.roots[channels.ids[self.orders[index]]]
            self.given.setdefault(frozenset(roots.tolist()), roots)
        return [None if piece is None else piece.tensor for piece in results]

    def _derived(self, step: Step, suffix: str) -> str:
        """The name of one more layer that does work of a call's layer."""
        name = step.site.derive(suffix)
        self.made[name] = step.call.name
        return name

    def _wanted(self, output: Channels) -> Array:
        """The kept channels, in the order that joined channels already have in another tensor.

        A concatenation fixes an order, which a summand should have as well. Channels that are not
        sorted, such as those of groups, keep their order.
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
        """The output of the new layer of an earlier call, on the tensors of this call."""
        if id(step.call.operation) not in self.shared:
            return None
        before, made = self.shared[id(step.call.operation)]
        now = [piece for piece in pieces if piece is not None]
        for old, new in zip(before, now, strict=True):
            assert np.array_equal(old.order, new.order), "select_channels gives all calls one order"
        tensors = [piece.tensor for piece in now]
        return Piece(
            bare_operations.again([p.tensor for p in before], made.tensor, tensors), made.order
        )

    def _piece(self, index: int, tensor: Tensor | None, side: Channels) -> Piece | None:
        """A new tensor with its channels; one that no rule has built holds all of them in order."""
        if tensor is None:
            return None
        return Piece(tensor, self.orders.get(index, np.arange(len(side))))

    def _unchanged(self, step: Step, tensors: list[Tensor | None]) -> list[Tensor | None]:
        """The outputs of a copy of the layer, with masked weights."""
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
