"""Whether streams of images keep the processor busy: alone, and in a training.

    python benchmarks/streaming.py --data-dir DIR --rounds 3 > benchmarks/results/streaming.txt

For the recipes of Fashion-MNIST, in DIR, and of ImageNet, of which there are random photographs of
the usual size in its own archives: images a second that the stream gives alone; that its network
takes in training from one batch in memory, again and again, and from the stream, in turns; and
processor time over time. The median of several rounds. Batches are 32 images, so that ImageNet's
fit into small machines.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from runs import machine

from keras_structsparse import models
from keras_structsparse.data.image_streams import Stream, Streams, streams
from keras_structsparse.training.fit import compile_for
from keras_structsparse.training.recipes import RECIPES, DataRecipe

HEIGHT, WIDTH, DETAIL = 375, 500, 25
"""Of the random photographs; the side of the squares of one colour that they are made from."""

PHOTOGRAPHS, SYNSETS = 768, ("n01440764", "n01443537")
BATCH = 32


def photograph(rng: np.random.Generator) -> bytes:
    """A random image, smooth but for some noise, as a JPEG of about 50 kB."""
    import tensorflow as tf

    coarse = rng.uniform(0, 255, (HEIGHT // DETAIL, WIDTH // DETAIL, 3))
    image = tf.image.resize(coarse, (HEIGHT, WIDTH)) + rng.normal(0, 8, (HEIGHT, WIDTH, 3))
    pixels = tf.cast(tf.clip_by_value(image, 0, 255), tf.uint8)
    return bytes(tf.io.encode_jpeg(pixels, quality=90).numpy())


def archive(files: Mapping[str, bytes]) -> bytes:
    """The files as one tar file."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


def imagenet(folder: Path) -> None:
    """The archives of ImageNet, of two classes, where tensorflow-datasets looks for them."""
    rng, manual = np.random.default_rng(0), folder / "downloads" / "manual"
    manual.mkdir(parents=True)
    classes = {
        f"{synset}.tar": archive(
            {f"{synset}_{i}.JPEG": photograph(rng) for i in range(PHOTOGRAPHS // len(SYNSETS))}
        )
        for synset in SYNSETS
    }
    (manual / "ILSVRC2012_img_train.tar").write_bytes(archive(classes))
    held = {"ILSVRC2012_val_00000001.JPEG": photograph(rng)}
    (manual / "ILSVRC2012_img_val.tar").write_bytes(archive(held))


def pace(action: Callable[[], int]) -> tuple[float, float]:
    """Images a second, and processors at work, of something that returns its number of images."""
    start, busy = time.perf_counter(), time.process_time()
    images = action()
    seconds = time.perf_counter() - start
    return images / seconds, (time.process_time() - busy) / seconds


def drawn(stream: Stream, batches: int) -> int:
    """Take that many batches."""
    return sum(int(images.shape[0]) for images, _ in stream.repeat().take(batches))


def measured(recipe: DataRecipe, data: Streams, steps: int, rounds: int) -> dict[str, Any]:
    """Medians of all paces, by what was done."""
    network = models.build(recipe.model)
    compile_for(network, recipe, data.examples)
    memory = data.train.take(1).cache().repeat()

    def trained(stream: Stream) -> int:
        network.fit(stream, steps_per_epoch=steps, verbose=0)
        return steps * recipe.batch_size

    actions = {
        "alone": lambda: drawn(data.train, 4 * steps),
        "memory": lambda: trained(memory),
        "stream": lambda: trained(data.train.repeat()),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in actions}
    for _ in range(rounds + 1):
        for name, action in actions.items():
            found[name].append(pace(action))
    return {name: np.median(all_[1:], axis=0) for name, all_ in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="where fashion_mnist lies or will be built by TFDS")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"{machine()}, {options.rounds} rounds")
    print("recipe         stream alone (cores)   training from memory (cores)   from the stream")
    with tempfile.TemporaryDirectory() as folder:
        print("making photographs", file=sys.stderr)
        imagenet(Path(folder))
        for name, place, steps in (
            ("fashion-mnist", options.data_dir, 400),
            ("imagenet", folder, 5),
        ):
            recipe = replace(RECIPES[name], batch_size=BATCH)
            with contextlib.redirect_stdout(sys.stderr):  # What preparing the data says.
                data = streams(recipe, place)
            found = measured(recipe, data, steps, options.rounds)
            alone, memory, stream = (found[key] for key in ("alone", "memory", "stream"))
            print(
                f"{name:<14} {alone[0]:>8.0f} /s   ({alone[1]:.1f})   {memory[0]:>12.1f} /s "
                f"({memory[1]:.1f})   {stream[0]:>16.1f} /s ({stream[1]:.1f}), "
                f"{stream[0] / memory[0]:.0%} of memory's"
            )


if __name__ == "__main__":
    main()
