"""What surgery says of the layers that it could not make smaller."""

from __future__ import annotations

from keras_structsparse.graph.channels.propagation import Walk
from keras_structsparse.surgery.channel_selection import ChannelSelection


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


def filling_notes(walked: Walk, selection: ChannelSelection, round_to: int) -> tuple[str, ...]:
    """How many kernels of which layers are kept only to fill a block.

    Args:
        walked: The calls of the network.
        selection: Which channels are kept.
        round_to: The size of a block.

    Returns:
        One sentence, or none.
    """
    outputs = {step.call.name: step.flow.output for step in walked.steps if step.flow.blocks}
    counts = {name: int(selection.filling[found.ids].sum()) for name, found in outputs.items()}
    filling = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    return (f"kernels kept only to make widths multiples of {round_to}: {filling}",) * bool(filling)
