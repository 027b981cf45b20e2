"""What surgery says of the layers that it could not make smaller."""

from __future__ import annotations

from collections.abc import Sequence

from keras_structsparse.graph.channels.propagation import Walk
from keras_structsparse.surgery.channel_selection import ChannelSelection

MOST = 10
"""How many layers a sentence lists."""


def collect_notes(walked: Walk) -> tuple[str, ...]:
    """One sentence for each layer whose channels surgery could not remove.

    Args:
        walked: The calls of the network.
    """
    sentences = []
    for step in walked.steps:
        for note in step.flow.notes:
            kind = type(step.call.operation).__name__
            sentences.append(f"layer '{step.call.name}' ({kind}): {note}")
    return tuple(dict.fromkeys(sentences))


def constant_notes(walked: Walk, selection: ChannelSelection) -> tuple[str, ...]:
    """Which layers compute constants that nothing but a layer behind them needs, and which one.

    Args:
        walked: The calls of the network.
        selection: Which channels are kept.

    Returns:
        One sentence, or none.
    """
    readers: dict[int, str] = {}
    for step in walked.steps:
        for ids in step.flow.keeps:
            for root in selection.roots[ids].tolist():
                readers.setdefault(root, step.call.name)
    found = []
    for step in walked.steps:
        output = step.flow.output
        constant = ~output.live & selection.keep[output.ids] & ~selection.filling[output.ids]
        roots = selection.roots[output.ids[constant]].tolist() if step.flow.reads else []
        names = [readers[root] for root in roots if root in readers]
        if names:
            found.append(f"{step.call.name} {len(names)} (for {', '.join(dict.fromkeys(names))})")
    return _listed("constant kernels kept for layers that keep all channels", found)


def _listed(what: str, found: Sequence[str]) -> tuple[str, ...]:
    """One sentence with the first entries of a list, or none."""
    more = f", and {len(found) - MOST} more layers" * (len(found) > MOST)
    return (f"{what}: {', '.join(found[:MOST])}{more}",) * bool(found)


def filling_notes(walked: Walk, selection: ChannelSelection, round_to: int) -> tuple[str, ...]:
    """How many kernels of which layers are kept only to fill a block, or for a least width.

    Args:
        walked: The calls of the network.
        selection: Which channels are kept.
        round_to: The size of a block.

    Returns:
        At most one sentence for each reason.
    """
    reasons = {
        False: f"kernels kept only to make widths multiples of {round_to}",
        True: "kernels of zeros kept because oneDNN cannot train narrower strided 1x1 layers",
    }
    flows = {step.call.name: step.flow for step in walked.steps if step.flow.blocks}
    counts = {name: int(selection.filling[flow.output.ids].sum()) for name, flow in flows.items()}
    found = {
        is_least: ", ".join(
            f"{name} {count}"
            for name, count in counts.items()
            if count and bool(flows[name].least_width) == is_least
        )
        for is_least in reasons
    }
    return tuple(f"{reasons[is_least]}: {text}" for is_least, text in found.items() if text)
