"""Torch-Pruning on the networks, photographs, epochs and teacher of benchmarks/shrink.py.

    pip install '.[peers]'
    python benchmarks/peers/torch_pruning_shrink.py --data-dir DIR
    python benchmarks/peers/torch_pruning_shrink.py --data-dir DIR --networks mobilenet_v2

The dense Keras network of each seed is rebuilt in torch with the same weights (the same outputs are
checked), and then pruned by Torch-Pruning 1.6, over all layers at once:

- "magnitude", "taylor": its importances of whole groups, with its defaults. Channels go in 40 cuts
  along the cubic course of multiply-adds of `kss.shrink`, in the same half of the epochs, until the
  share is met. Taylor's gradients are of 256 photographs, new ones for each cut.
- "group_norm": its group-norm learning in that half, and one cut at the end of it.

The loss is that of `kss.shrink`: 0.9 of the divergence from the dense network at a temperature of
2, 0.1 of the labels. The optimizer is Adam with a cosine, and keeps its averages over the cuts. The
rates of `--rates` are all run; the table has the one of the best mean accuracy on the validation
photographs, for each importance and share. Finished runs are kept in
benchmarks/results/torch_pruning.jsonl.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
import numpy as np
import pretrained
import torch
import torch_pruning as tp
from keras import layers as L
from runs import RESULTS, Array, Results, Row, groups
from torch import nn
from torch.nn import functional as F

from keras_structsparse.graph.functional_graph import Graph, read

IMPORTANCES: dict[str, Callable[[], Any]] = {
    "magnitude": lambda: tp.importance.GroupMagnitudeImportance(p=2),
    "taylor": tp.importance.GroupTaylorImportance,
    "group_norm": lambda: tp.importance.GroupMagnitudeImportance(p=2),
}
CUTS, REMOVAL = 40, 0.5
DISTILLATION, TEMPERATURE = 0.9, 2.0
MEASURED = 256
STEPS, MOST = 200, 0.95
"""Torch-Pruning's steps, of which a cut takes as many as it needs; the most channels of a layer."""
REGULARIZATION = 5e-4
LINE = (
    "{share:>6} {importance:<11} {rate:>8} {left:>6} {dense:>6} {after:>6} {drop:>6} {seeds:>5}\n"
)


# --- the network in torch ---


class Rebuilt(nn.Module):
    """A Keras network of the layers that these benchmarks use, in torch."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.calls = [call for call in graph.calls if not isinstance(call.operation, L.InputLayer)]
        self.entry, self.exit = graph.inputs[0], graph.outputs[0]
        self.parts = nn.ModuleList(_part(call.operation) for call in self.calls)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the logits of images (examples, channels, height, width)."""
        tensors = {self.entry: x}
        for call, part in zip(self.calls, self.parts, strict=True):
            tensors[call.outputs[0]] = part(*(tensors[i] for i in call.inputs))
        return tensors[self.exit]


class Sum(nn.Module):
    """The sum of two tensors."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Add."""
        return x + y


class Joined(nn.Module):
    """The channels of several tensors."""

    def forward(self, *x: torch.Tensor) -> torch.Tensor:
        """Concatenate."""
        return torch.cat(x, 1)


class Mean(nn.Module):
    """The mean over positions."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool."""
        return x.mean((2, 3))


def _convolution(layer: L.Layer) -> nn.Module:
    depthwise = isinstance(layer, L.DepthwiseConv2D)
    kernel = np.asarray(layer.kernel)
    kernel = kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(3, 2, 0, 1)
    outputs, inputs = kernel.shape[:2]
    same = layer.padding == "same"
    if same and layer.strides != (1, 1) and max(kernel.shape[2:]) > 1:
        raise ValueError(f"'{layer.name}': expected strides of 1 with padding 'same'.")
    made = nn.Conv2d(
        outputs if depthwise else inputs,
        outputs,
        kernel.shape[2:],
        layer.strides,
        tuple(side // 2 for side in kernel.shape[2:]) if same else 0,
        groups=outputs if depthwise else 1,
        bias=layer.use_bias,
    )
    _fill(made, kernel, layer.bias)
    return nn.Sequential(made, nn.ReLU()) if layer.activation is keras.activations.relu else made


def _dense(layer: L.Dense) -> nn.Module:
    made = nn.Linear(*np.asarray(layer.kernel).shape)
    _fill(made, np.asarray(layer.kernel).T, layer.bias)
    return made


def _fill(made: Any, kernel: Array, bias: Any) -> None:
    with torch.no_grad():
        made.weight.copy_(torch.tensor(np.ascontiguousarray(kernel)))
        if bias is not None:
            made.bias.copy_(torch.tensor(np.asarray(bias)))


def _norm(layer: L.BatchNormalization) -> nn.Module:
    made = nn.BatchNorm2d(len(layer.gamma), layer.epsilon, 1 - layer.momentum)
    made.load_state_dict(
        {
            "weight": torch.tensor(np.asarray(layer.gamma)),
            "bias": torch.tensor(np.asarray(layer.beta)),
            "running_mean": torch.tensor(np.asarray(layer.moving_mean)),
            "running_var": torch.tensor(np.asarray(layer.moving_variance)),
            "num_batches_tracked": torch.tensor(0),
        }
    )
    return made


def _padding(layer: L.ZeroPadding2D) -> nn.Module:
    (top, bottom), (left, right) = layer.padding
    return nn.ZeroPad2d((left, right, top, bottom))


PARTS: dict[type, Callable[[Any], nn.Module]] = {
    L.Conv2D: _convolution,
    L.DepthwiseConv2D: _convolution,
    L.Dense: _dense,
    L.BatchNormalization: _norm,
    L.ZeroPadding2D: _padding,
    L.ReLU: lambda layer: nn.ReLU6() if layer.max_value == 6 else nn.ReLU(),
    L.MaxPooling2D: lambda layer: nn.MaxPool2d(layer.pool_size, layer.strides),
    L.GlobalAveragePooling2D: lambda _: Mean(),
    L.Concatenate: lambda _: Joined(),
    L.Add: lambda _: Sum(),
}


def _part(layer: L.Layer) -> nn.Module:
    return PARTS[type(layer)](layer)


def rebuilt(model: keras.Model, images: Array) -> Rebuilt:
    """The network in torch; its probabilities are checked."""
    network = Rebuilt(read(model)).eval()
    with torch.no_grad():
        ours = F.softmax(network(tensor(images)), 1).numpy()
    difference = np.abs(ours - model.predict(images, verbose=0)).max()
    if difference > 1e-3:
        raise ValueError(f"expected the same probabilities in torch. Received: {difference:.1e}")
    return network


def tensor(images: Array) -> torch.Tensor:
    """Images with channels first."""
    return torch.tensor(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


# --- pruning ---


class Averages:
    """Adam's averages, which lose the same entries as the weights.

    A twin of the network has in the place of every weight its index, and is cut likewise.
    """

    def __init__(self, network: nn.Module, example: torch.Tensor) -> None:
        self.twin = copy.deepcopy(network).double()
        self.graph = tp.DependencyGraph().build_dependency(self.twin, example.double())
        self._number()

    def _number(self) -> None:
        for weight in self.twin.parameters():
            weight.data = torch.arange(weight.numel(), dtype=torch.float64).reshape(weight.shape)

    def cut(self, name: str, handler: Any, channels: Sequence[int]) -> None:
        """Repeat a cut of the network."""
        module = self.twin.get_submodule(name)
        self.graph.get_pruning_group(module, handler, list(channels)).prune()

    def carry(
        self, old: torch.optim.Adam, before: Sequence[nn.Parameter], network: nn.Module, rate: float
    ) -> torch.optim.Adam:
        """A new optimizer for the weights that are left, with their averages."""
        new = torch.optim.Adam(network.parameters(), rate)
        places = zip(before, network.parameters(), self.twin.parameters(), strict=True)
        for was, now, twin in places:
            if was in old.state:
                kept = twin.data.long()
                new.state[now] = {
                    key: value.clone() if key == "step" else value.flatten()[kept]
                    for key, value in old.state[was].items()
                }
        self._number()
        return new


class Pruning:
    """A network while channels are removed from it."""

    def __init__(self, network: nn.Module, importance: str, example: torch.Tensor) -> None:
        self.network, self.example = network, example
        head = [part for part in network.modules() if isinstance(part, nn.Linear)]
        kind = tp.pruner.GroupNormPruner if importance == "group_norm" else tp.pruner.BasePruner
        options = {"reg": REGULARIZATION} if importance == "group_norm" else {}
        self.pruner = kind(
            network,
            example,
            IMPORTANCES[importance](),
            global_pruning=True,
            pruning_ratio=0.99,
            max_pruning_ratio=MOST,
            iterative_steps=STEPS,
            ignored_layers=head,
            **options,
        )
        self.averages = Averages(network, example)
        self.names = {module: name for name, module in network.named_modules()}
        self.whole = self.multiply_adds()

    def multiply_adds(self) -> float:
        """The multiply-adds of the network as it is."""
        return float(tp.utils.count_ops_and_params(self.network, self.example)[0])

    def cut(self, share: float, optimizer: torch.optim.Adam, rate: float) -> torch.optim.Adam:
        """Remove channels until at most this share of the multiply-adds is left."""
        before = list(self.network.parameters())
        while self.multiply_adds() > share * self.whole and self.pruner.current_step < STEPS:
            for group in self.pruner.step(interactive=True):
                root = group[0]
                name = self.names[root.dep.target.module]
                self.averages.cut(name, root.dep.handler, root.idxs)
                group.prune()
        return self.averages.carry(optimizer, before, self.network, rate)


# --- training ---


def loss_of(logits: torch.Tensor, labels: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
    """The labels' loss and the divergence from the dense network."""
    soft = F.kl_div(
        F.log_softmax(logits / TEMPERATURE, 1),
        F.log_softmax(taught / TEMPERATURE, 1),
        reduction="batchmean",
        log_target=True,
    )
    return (1 - DISTILLATION) * F.cross_entropy(
        logits, labels
    ) + DISTILLATION * TEMPERATURE**2 * soft


def batches(count: int) -> Iterator[torch.Tensor]:
    """The places of an epoch's batches, in another order each time."""
    yield from torch.randperm(count).split(pretrained.SHRINK_BATCH)


def train(network: nn.Module, parts: pretrained.Parts, setting: Row) -> list[float]:
    """Prune and tune; returns the accuracy on the validation photographs after every epoch."""
    images, labels = tensor(parts["train"][0]), torch.tensor(parts["train"][1])
    teacher = copy.deepcopy(network).eval()
    pruning = Pruning(network, setting["importance"], images[:1])
    optimizer = torch.optim.Adam(network.parameters(), setting["rate"])
    steps = -(-len(labels) // pretrained.SHRINK_BATCH) * pretrained.EPOCHS
    first = round(REMOVAL * steps)
    learnt = setting["importance"] == "group_norm"
    cuts = (
        {first: 1.0} if learnt else {round(first * n / CUTS): n / CUTS for n in range(1, CUTS + 1)}
    )
    step, history = 0, []
    for _ in range(pretrained.EPOCHS):
        network.train()
        if learnt and step < first:
            pruning.pruner.update_regularizer()
        for places in batches(len(labels)):
            with torch.no_grad():
                taught = teacher(images[places])
            optimizer.zero_grad()
            loss_of(network(images[places]), labels[places], taught).backward()
            if learnt and step < first:
                pruning.pruner.regularize(network)
            step += 1
            rate = setting["rate"] * (1 + np.cos(np.pi * step / steps)) / 2
            optimizer.step()
            if step in cuts:
                measure(network, teacher, images, labels)
                share = 1 - (1 - setting["share"]) * (1 - (1 - cuts[step]) ** 3)
                optimizer = pruning.cut(share, optimizer, rate)
            optimizer.param_groups[0]["lr"] = rate
        history.append(accuracy(network, parts["validation"]))
    return history


def measure(
    network: nn.Module, teacher: nn.Module, images: torch.Tensor, labels: torch.Tensor
) -> None:
    """The gradients that Taylor's importance reads."""
    places = torch.randperm(len(labels))[:MEASURED]
    with torch.no_grad():
        taught = teacher(images[places])
    network.eval()
    network.zero_grad()
    loss_of(network(images[places]), labels[places], taught).backward()
    network.train()


def accuracy(network: nn.Module, part: pretrained.Pair) -> float:
    """The share of the labels that the network finds."""
    network.eval()
    images = tensor(part[0])
    with torch.no_grad():
        found = torch.cat([network(some).argmax(1) for some in images.split(250)])
    return float((found.numpy() == part[1]).mean())


def run(setting: Row, parts: pretrained.Parts, folder: Path) -> Row:
    """One network, pruned and tuned."""
    model = pretrained.dense(parts, folder, setting["network"], setting["seed"])
    network = rebuilt(model, parts["test"][0][:8])
    torch.manual_seed(setting["seed"])
    dense, start = accuracy(network, parts["test"]), time.perf_counter()
    example = tensor(parts["test"][0][:1])
    whole = tp.utils.count_ops_and_params(network, example)[0]
    history = train(network, parts, setting)
    return {
        **setting,
        "left": float(tp.utils.count_ops_and_params(network, example)[0] / whole),
        "dense": dense,
        "validation": history[-1],
        "after": accuracy(network, parts["test"]),
        "seconds": round(time.perf_counter() - start),
        "history": [round(value, 4) for value in history],
    }


def table(rows: Sequence[Row]) -> str:
    """Mean over the seeds, in per cent, of the best rate of each importance and share."""
    text = f"Torch-Pruning {tp.__version__}, torch {torch.__version__.split('+')[0]}\n"
    keys = ("share", "importance", "rate", "left", "dense", "after", "drop", "seeds")
    for (network,), own in groups(rows, "network").items():
        text += f"\n{network} on Imagenette, 3,000 photographs\n"
        text += LINE.format(**{key: key for key in keys})
        for (share, importance), tried in sorted(groups(own, "share", "importance").items())[::-1]:
            rates = groups(tried, "rate").items()
            (rate,), found = max(rates, key=lambda item: _mean(item[1], "validation"))
            means = {key: f"{100 * _mean(found, key):.1f}" for key in ("left", "dense", "after")}
            drop = 100 * (_mean(found, "dense") - _mean(found, "after"))
            text += LINE.format(
                share=f"{100 * share:.0f}",
                importance=importance,
                rate=rate,
                drop=f"{drop:.1f}",
                seeds=len(found),
                **means,
            )
    return text


def _mean(rows: Sequence[Row], key: str) -> float:
    return statistics.fmean(row[key] for row in rows)


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    pretrained.add_options(parser)
    parser.add_argument("--importances", nargs="+", default=list(IMPORTANCES))
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-4, 1e-3])
    options = parser.parse_args()
    results = Results(RESULTS / "torch_pruning.jsonl")
    for network in options.networks:
        settings = [
            {
                "network": network,
                "importance": kind,
                "share": share,
                "rate": rate,
                "seed": seed,
            }
            for seed in range(options.seeds)
            for share in options.shares
            for kind in options.importances
            for rate in options.rates
        ]
        missing = list(results.missing(settings))
        parts = pretrained.load(options.data_dir, network) if missing else {}
        for setting in missing:
            results.add(run(setting, parts, options.data_dir))
    text = table(results.rows)
    (RESULTS / "torch_pruning.txt").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
