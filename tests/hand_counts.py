"""What the networks of the zoo are and cost, worked out by hand from the publications."""

from __future__ import annotations

from dataclasses import dataclass

from keras_structsparse.profiling.architecture import Architecture


@dataclass(frozen=True)
class Row:
    """Equal convolutions: positions of the output map, inputs, width, size, how many."""

    places: int
    inputs: int
    width: int
    size: int
    count: int = 1

    @property
    def weights(self) -> int:
        return self.count * self.inputs * self.width * self.size**2

    @property
    def work(self) -> int:
        return self.places * self.weights

    @property
    def channels(self) -> int:
        return self.count * self.width


def found(
    depth: int, sizes: tuple[int, ...], rows: list[Row], dense: list[tuple[int, int]], extra: int
) -> Architecture:
    """Weights of convolutions and dense layers, `extra` parameters for each output channel."""
    weights = sum(row.weights + extra * row.channels for row in rows)
    return Architecture(
        depth=depth,
        widths=tuple(sorted({row.width for row in rows})),
        sizes=sizes,
        params=weights + sum(a * b + b for a, b in dense),
        multiply_adds=sum(row.work for row in rows) + sum(a * b for a, b in dense),
    )


Pair = tuple[Architecture, Architecture]


def base(depth: int, rows: list[Row], shortcuts: list[Row], features: int, classes: int) -> Pair:
    """A base with and without shortcuts; four numbers of normalisation for each output channel."""
    sizes = tuple(sorted({row.size for row in rows}))
    dense = [(features, classes)]
    residual = found(depth, (1, *sizes), rows + shortcuts, dense, 4)
    return residual, found(depth, sizes, rows, dense, 4)


DIGITS = base(
    8,
    [Row(64, 1, 16, 5), Row(64, 16, 16, 5, 2), Row(16, 16, 16, 5, 4)],
    [Row(16, 16, 16, 1)],
    16,
    10,
)
MNIST = base(
    8,
    [Row(196, 1, 16, 5), Row(196, 16, 16, 5, 2), Row(49, 16, 16, 5, 4)],
    [Row(49, 16, 16, 1)],
    16,
    10,
)


def cifar(n: int) -> Pair:
    """6n + 2 layers on maps of 32x32, 16x16 and 8x8."""
    rows = [
        Row(1024, 3, 16, 3),
        Row(1024, 16, 16, 3, 2 * n),
        Row(256, 16, 32, 3),
        Row(256, 32, 32, 3, 2 * n - 1),
        Row(64, 32, 64, 3),
        Row(64, 64, 64, 3, 2 * n - 1),
    ]
    return base(6 * n + 2, rows, [Row(256, 16, 32, 1), Row(64, 32, 64, 1)], 64, 10)


SQUARE = base(
    19,
    [
        Row(1024, 3, 64, 5),
        Row(1024, 64, 64, 5, 6),
        Row(256, 64, 64, 5, 6),
        Row(64, 64, 64, 5, 5),
    ],
    [Row(256, 64, 64, 1), Row(64, 64, 64, 1)],
    64,
    10,
)
IMAGENET_8 = base(
    8,
    [
        Row(112**2, 3, 64, 7),
        Row(56**2, 64, 64, 3, 2),
        Row(28**2, 64, 128, 3),
        Row(28**2, 128, 128, 3),
        Row(14**2, 128, 256, 3),
        Row(14**2, 256, 256, 3),
    ],
    [Row(28**2, 64, 128, 1), Row(14**2, 128, 256, 1)],
    256,
    1000,
)
IMAGENET_18 = base(
    18,
    [
        Row(112**2, 3, 64, 7),
        Row(56**2, 64, 64, 3, 4),
        Row(28**2, 64, 128, 3),
        Row(28**2, 128, 128, 3, 3),
        Row(14**2, 128, 256, 3),
        Row(14**2, 256, 256, 3, 3),
        Row(7**2, 256, 512, 3),
        Row(7**2, 512, 512, 3, 3),
    ],
    [Row(28**2, 64, 128, 1), Row(14**2, 128, 256, 1), Row(7**2, 256, 512, 1)],
    512,
    1000,
)
ALEXNET = found(
    8,
    (3, 5, 11),
    # The second, fourth and fifth convolution read half of the channels before.
    [
        Row(55**2, 3, 96, 11),
        Row(27**2, 48, 256, 5),
        Row(13**2, 256, 384, 3),
        Row(13**2, 192, 384, 3),
        Row(13**2, 192, 256, 3),
    ],
    [(6 * 6 * 256, 4096), (4096, 4096), (4096, 1000)],
    1,
)
VGG16 = found(
    16,
    (3,),
    [
        Row(224**2, 3, 64, 3),
        Row(224**2, 64, 64, 3),
        Row(112**2, 64, 128, 3),
        Row(112**2, 128, 128, 3),
        Row(56**2, 128, 256, 3),
        Row(56**2, 256, 256, 3, 2),
        Row(28**2, 256, 512, 3),
        Row(28**2, 512, 512, 3, 2),
        Row(14**2, 512, 512, 3, 3),
    ],
    [(7 * 7 * 512, 4096), (4096, 4096), (4096, 1000)],
    1,
)


def inception(side: int, inputs: int, *widths: int) -> list[Row]:
    """The six convolutions of a module of GoogLeNet."""
    one, before_three, three, before_five, five, pooled = widths
    sides = [(inputs, one, 1), (inputs, before_three, 1), (before_three, three, 3)]
    sides += [(inputs, before_five, 1), (before_five, five, 5), (inputs, pooled, 1)]
    return [Row(side**2, *entry) for entry in sides]


GOOGLENET = found(
    22,
    (1, 3, 5, 7),
    [
        Row(112**2, 3, 64, 7),
        Row(56**2, 64, 64, 1),
        Row(56**2, 64, 192, 3),
        *inception(28, 192, 64, 96, 128, 16, 32, 32),
        *inception(28, 256, 128, 128, 192, 32, 96, 64),
        *inception(14, 480, 192, 96, 208, 16, 48, 64),
        *inception(14, 512, 160, 112, 224, 24, 64, 64),
        *inception(14, 512, 128, 128, 256, 24, 64, 64),
        *inception(14, 512, 112, 144, 288, 32, 64, 64),
        *inception(14, 528, 256, 160, 320, 32, 128, 128),
        *inception(7, 832, 256, 160, 320, 32, 128, 128),
        *inception(7, 832, 384, 192, 384, 48, 128, 128),
    ],
    [(1024, 1000)],
    1,
)


def stage(side: int, inputs: int, width: int, blocks: int) -> list[Row]:
    """Bottlenecks of ResNet-152, the first with a projection."""
    return [
        Row(side**2, inputs, 4 * width, 1),
        Row(side**2, inputs, width, 1),
        Row(side**2, 4 * width, width, 1, blocks - 1),
        Row(side**2, width, width, 3, blocks),
        Row(side**2, width, 4 * width, 1, blocks),
    ]


RESNET152 = found(
    152,
    (1, 3, 7),
    [
        Row(112**2, 3, 64, 7),
        *stage(56, 64, 64, 3),
        *stage(28, 256, 128, 8),
        *stage(14, 512, 256, 36),
        *stage(7, 1024, 512, 3),
    ],
    [(2048, 1000)],
    5,  # keras.applications gives the convolutions biases as well
)

COUNTS = {
    "digits-residual": DIGITS[0],
    "digits-plain": DIGITS[1],
    "mnist-residual": MNIST[0],
    "mnist-plain": MNIST[1],
    "fashion-mnist-residual": MNIST[0],
    "fashion-mnist-plain": MNIST[1],
    "cifar10-resnet20": cifar(3)[0],
    "cifar10-plain20": cifar(3)[1],
    "cifar10-square-residual": SQUARE[0],
    "cifar10-square-plain": SQUARE[1],
    "imagenet-resnet8": IMAGENET_8[0],
    "imagenet-plain8": IMAGENET_8[1],
    "imagenet-resnet18": IMAGENET_18[0],
    "imagenet-plain18": IMAGENET_18[1],
    "alexnet": ALEXNET,
    "vgg16": VGG16,
    "googlenet": GOOGLENET,
    "resnet152": RESNET152,
    "cifar10-resnet56": cifar(9)[0],
}

PUBLISHED = {
    "cifar10-resnet20": (0.27e6, 40.8e6),
    "vgg16": (138e6, 15.5e9),
    "resnet152": (60e6, 11.3e9),
    "alexnet": (60e6, None),
    "googlenet": (6.7e6, 1.5e9),  # its table counts in units of 1024
    "cifar10-resnet56": (0.85e6, None),
}
"""Parameters and multiply-adds as publications round them."""
