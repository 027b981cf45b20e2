"""A budget in time: networks are timed, and whole blocks of kernels go.

Most tests have a clock that counts: a network takes as long as its multiply-adds with widths
rounded up to multiples of a block. So they do not depend on the machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_depthwise import inverted_residual
from helpers_models import randomize as loud
from helpers_shrink import conv, head, normed, randomize, residual, whole
from helpers_shrinking import CROSS, Killed, easy, shrunk
from keras import layers as L

import keras_structsparse as kss
from keras_structsparse.errors import OutputError
from keras_structsparse.export.runtimes import RUNTIMES, Runtime
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.group_prices import Blocks, joint_kernels, priced
from keras_structsparse.profiling.group_selection import select_down_to
from keras_structsparse.profiling.inner_layers import inner_layers, read_depthwise
from keras_structsparse.profiling.latency import Latency as Row
from keras_structsparse.profiling.work_share import WorkShare, plan_of
from keras_structsparse.training.shrink import latency_share, removal
from keras_structsparse.training.shrink.budget import Budget
from keras_structsparse.training.shrink.latency import Latency
from keras_structsparse.training.shrink.latency_share import LatencyShare, carriers_of, find_goal
from keras_structsparse.training.shrink.method import ShrinkMethod

pytestmark = [
    pytest.mark.filterwarnings("ignore:shrink. accuracy changed:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

HALF = Latency(share=0.5, runtime="keras")


def wide() -> keras.Model:
    return residual(24, 32, 20)


def ready(make: Callable[[], keras.Model] = wide) -> tuple[keras.Model, Any]:
    keras.utils.set_random_seed(1)
    model = make()
    model.compile(keras.optimizers.Adam(0.01), CROSS, metrics=["accuracy"], run_eagerly=True)
    return model, easy(model)


def counted(model: keras.Model, block: int) -> float:
    """The multiply-adds with widths in blocks."""
    return float(
        sum(
            layer.multiply_adds / layer.kernels * math.ceil(layer.kernels / block) * block
            for layer in kss.profile(model).layers
            if layer.multiply_adds
        )
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[keras.Model, int], list[keras.Model]]:
    """A clock that counts: from the network before and a block to the networks that it timed."""

    def start(model: keras.Model, block: int) -> list[keras.Model]:
        timed: list[keras.Model] = []

        def measured(self: LatencyShare, pruned: keras.Model) -> float:
            timed.append(pruned)
            self.before = 4.0
            return counted(pruned, block) / counted(model, block)

        def latency(self: Runtime, models: Any, repeats: int = 30) -> list[Row]:
            shares = [4.0 * counted(own, block) / counted(model, block) for own in models.values()]
            return [Row(name, 1, t, (t, t), 1) for name, t in zip(models, shares, strict=True)]

        monkeypatch.setattr(LatencyShare, "measured", measured)
        monkeypatch.setattr(Runtime, "latency", latency)
        return timed

    return start


@pytest.mark.parametrize("block", latency_share.BLOCKS)
def test_the_blocks_of_the_clock_are_found(block: int, clock: Any) -> None:
    """With other blocks, more must go for the same time."""
    stack = [L.Dense(width, name=f"{width}") for width in (192, 144, 240, 128, 3)]
    model = keras.Sequential([keras.Input((64,)), *stack])
    clock(model, block)
    found = PrunableLayers.of(model)
    share = LatencyShare(found, "none", Runtime("keras"), model)
    rng = np.random.default_rng(2)
    sizes = whole(found)
    losses = {
        name: rng.uniform(0.7, 1.4) * rng.random((1, len(sizes[name])))
        for name in inner_layers(found)
    }
    goal = find_goal(share, losses, sizes, {}, 0.5)
    # Without steps all blocks take what they should, but smaller ones can choose better.
    assert goal.blocks.size == block
    assert 0.1 < goal.multiply_adds <= 0.52


def padded(seed: int) -> keras.Model:
    """A residual network with padding, in which removed kernels leave constants that count."""
    rng = np.random.default_rng(seed)
    inputs = keras.Input((6, 6, 2))
    width = int(rng.integers(8, 15))
    x = normed(conv(inputs, width, name="stem"))
    for number in range(2):
        y = normed(conv(x, int(rng.integers(8, 15)), name=f"in{number}"))
        y = L.BatchNormalization()(conv(y, width, name=f"out{number}"))
        x = L.ReLU()(L.Add()([x, y]))
    model = loud(keras.Model(inputs, head(conv(x, 6, 1, name="last", activation="relu"))))
    for weight in model.weights:
        if weight.name in ("bias", "beta"):
            weight.assign(np.abs(keras.ops.convert_to_numpy(weight)) + 0.1)
    return model


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("counted_in", [True, False])
def test_carriers_count_for_the_width(seed: int, counted_in: bool) -> None:
    """Surgery keeps one constant kernel where padding shows the constants: part of a block."""
    found = PrunableLayers.of(padded(seed))
    share, sizes = WorkShare(found, "none"), whole(found)
    rng = np.random.default_rng(seed)
    losses = {name: rng.random((1, len(sizes[name]))) for name in inner_layers(found)}
    joint = {kernels: float(rng.random()) for kernels in joint_kernels(found, losses)}
    carriers = carriers_of(share, priced(share, losses, sizes, "kernel", joint), sizes)
    assert carriers["stem"] == carriers["in0"] == 1
    assert carriers["last"] == 0
    blocks = Blocks(4, carriers if counted_in else {})
    layers = priced(share, losses, sizes, "kernel", joint, blocks)
    odd = []
    for target in (0.8, 0.6, 0.4, 0.25):
        left = select_down_to(layers, lambda own: share.work({**sizes, **own}), target).sizes
        pruned = kss.prune(found, plan_of({**sizes, **left}), realize="none")
        widths = {name: pruned.get_layer(name).output.shape[-1] for name in left}
        odd += [w for name, w in widths.items() if w % 4 and w != len(sizes[name])]
    assert bool(odd) != counted_in  # The control: carriers that are not counted make widths odd.


@pytest.mark.parametrize("latency", [HALF, Latency(ms=2, runtime="keras")])
def test_a_network_takes_what_it_may_and_has_whole_blocks(
    latency: Latency, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = ready()
    timed = clock(model, 8)
    monkeypatch.setattr(latency_share, "BLOCKS", (8,))
    result = shrunk(model, data, data, latency=latency)
    assert result.timing is not None
    assert result.timing.allowed == 0.5
    assert 0.3 < result.timing.share <= 0.5 * 1.02
    assert result.timing.share == counted(result.model, 8) / counted(model, 8)
    kernels = [sum(x > 0 for x in sizes) for sizes in result.plan.sizes.values()]
    full = [len(sizes) for sizes in result.plan.sizes.values()]
    assert all(k % 8 == 0 or k == n for k, n in zip(kernels, full, strict=True))
    assert kernels != full
    assert {max(s) for s in result.plan.sizes.values()} <= {0, 1, 3}  # whole ones only
    assert "milliseconds (keras, 1 example, 1 thread) | 4.000 | " in result.card
    assert len(timed) < 40
    assert not any("expected" in text for text in result.warnings)


def test_depthwise_channels_go_in_blocks_with_the_kernels_before(
    clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> keras.Model:
        inputs = keras.Input((6, 6, 2))
        x = normed(conv(inputs, 24, 1, name="expand"))
        x = normed(L.DepthwiseConv2D(3, padding="same", name="depthwise")(x))
        return randomize(keras.Model(inputs, head(normed(conv(x, 16, 1, name="project")))))

    model, data = ready(make)
    clock(model, 8)
    monkeypatch.setattr(latency_share, "BLOCKS", (8,))
    result = shrunk(model, data, latency=Latency(share=0.6, runtime="keras"))
    widths = {n: x.output.shape[-1] for x in result.model.layers for n in [x.name]}
    assert widths["expand"] == widths["depthwise"] < 24
    assert widths["depthwise"] % 8 == widths["project"] % 8 == 0
    assert read_depthwise(PrunableLayers.of(inverted_residual())) == {"expand"}


def test_a_killed_call_goes_on_with_the_same_goal(
    tmp_path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches: list[Any] = []

    def counted_search(*args: Any, **options: Any) -> Any:
        searches.append(args)
        return find_goal(*args, **options)

    monkeypatch.setattr(removal, "find_goal", counted_search)
    plans = []
    for kill in (None, 1, 2):
        model, data = ready()
        clock(model, 8)
        options = {"latency": HALF, "epochs": 4, "workdir": tmp_path / str(kill)}
        before = len(searches)
        if kill is not None:
            with pytest.raises(KeyboardInterrupt):
                shrunk(model, data, callbacks=[Killed(kill)], **options)
        plans.append(shrunk(model, data, **options).plan)
        assert len(searches) == before + 1
    assert plans[0] == plans[1] == plans[2]
    model, data = ready()
    options["latency"] = Latency(share=0.4, runtime="keras")
    with pytest.raises(OutputError, match="belongs to another budget"):
        shrunk(model, data, **options)


def test_a_time_that_cannot_be_met_is_said(clock: Any) -> None:
    model, data = ready()
    for name in ("stem", "b", "c"):
        model.get_layer(name).trainable = False
    model.compile(keras.optimizers.Adam(0.01), CROSS, run_eagerly=True)
    clock(model, 8)
    with pytest.warns(UserWarning, match=r"shrink: expected 5.0% of the time \(keras.*Received: "):
        shrunk(model, data, latency=Latency(share=0.05, runtime="keras"))


@pytest.mark.filterwarnings("ignore:shrink. expected 50.0% of the time:UserWarning")
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="files of TensorFlow")
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_clock_of_a_runtime(runtime: str) -> None:
    """The times depend on the machine; that there are some, and that less is faster, does not."""

    def make() -> keras.Model:
        inputs = keras.Input((24, 24, 8))
        x = normed(conv(normed(conv(inputs, 64, name="a")), 64, name="b"))
        return randomize(keras.Model(inputs, head(normed(conv(x, 64, name="c")))))

    model, data = ready(make)
    result = shrunk(model, data, latency=Latency(share=0.5, runtime=runtime))
    assert 0.1 < result.timing.share < 0.95
    assert f"milliseconds ({runtime}, " in result.card


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "latency: expected share or ms. Received: share=None, ms=None"),
        ({"share": 0.5, "ms": 1}, "latency: expected share or ms"),
        ({"share": 0}, r"share: expected a number in \(0, 1\]"),
        ({"share": 1.5}, "share: expected"),
        ({"ms": 0}, "ms: expected a finite number > 0"),
        ({"ms": "4ms"}, "ms: expected"),
        ({"ms": 1, "runtime": "tpu"}, "runtime: expected one of"),
        ({"ms": 1, "threads": 0}, "threads: expected"),
        ({"ms": 1, "batch_size": 1.5}, "batch_size: expected"),
    ],
)
def test_what_a_latency_cannot_be(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Latency(**options)


def test_what_a_latency_does_not_go_with(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = ready()
    with pytest.raises(ValueError, match="groups: expected 'kernel' with a latency"):
        shrunk(model, data, latency=HALF, method=ShrinkMethod(groups="half_ring"))
    with pytest.raises(ValueError, match="budget: expected one of"):
        shrunk(model, data, latency=HALF, params=0.5)
    with pytest.raises(ValueError, match=r"latency: expected a keras_structsparse\.Latency"):
        shrunk(model, data, latency=0.5)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="is not installed; pip install"):
        shrunk(model, data, latency=Latency(share=0.5))


def test_runtimes_and_budgets_have_one_list_of_names() -> None:
    assert set(RUNTIMES) == set(Latency.__dataclass_fields__["runtime"].metadata["choices"])
    assert str(Budget(latency=Latency(ms=4, threads=2))) == (
        "4 ms (onnxruntime, 1 example, 2 threads)"
    )
