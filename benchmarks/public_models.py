"""What becomes of model files that others have published: load, prune, train, export.

    python benchmarks/public_models.py --dir DIR

DIR holds the files of public_files.py, each named OWNER+NAME__PATH after its repository on GitHub
and its path there, with "_" for "/". They are not part of this repository. Every file is examined
in a process of its own: loaded, or refused by name; a plan removes the weakest third of the kernels
of every layer and takes the outermost half-ring from the next third; the pruned network is compared
with the masked one in float64, with a control; it is exported; both networks are trained for two
steps. What is finished is kept in benchmarks/results/public_models.jsonl, so that a run that was
stopped goes on. The table is docs/public-models.md.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from public_files import FILES, file_name, title
from runs import RESULTS, Results, Row, in_processes, machine, print_row

import keras_structsparse as kss
from keras_structsparse.errors import StructSparseError
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.kernel_axes import axes_of, base_size, plain_kernel
from keras_structsparse.graph.last_activations import in_front, kinds
from keras_structsparse.graph.numerics import relative_difference
from keras_structsparse.graph.prunable_layers import PrunableLayers, kernel_layers
from keras_structsparse.surgery.verification import in_float64, random_inputs

LINES = RESULTS / "public_models.jsonl"
TABLE = Path(__file__).parents[1] / "docs" / "public-models.md"

STEPS = 2
SAMPLES = 4
OPEN_SIZE = 32
"""What stands for a size that a model leaves open."""


# --- one file, in this process ---


def examine(path: Path) -> Iterator[Row]:
    """What is found out about a file, step by step: a failure keeps the steps before it."""
    keras.utils.set_random_seed(0)
    start = time.perf_counter()
    yield {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    try:
        model = kss.load_model(path)
    except StructSparseError as error:
        yield {"refused": str(error).replace(str(path), path.name)}
        return
    yield {"layers": len(model.layers), "params": model.count_params()}
    plan = weakest_third(model)
    sizes = [size for own in plan.sizes.values() for size in own]
    yield {"kernels": len(sizes), "removed": sizes.count(0)}
    said: dict[str, str] = {}
    pruned = model
    if plan.sizes:
        yield _asked("verify", said, lambda: verified(model, plan))
        pruned = kss.prune(model, plan)
        yield _asked("compare", said, lambda: compared(model, pruned))
    yield _asked("export", said, lambda: exported(pruned))
    if "export" in said:
        yield {"rounding": rounding(pruned)}
    yield _asked("tune", said, lambda: {"tuned": trained(pruned, penalty=False)})
    yield _asked("train", said, lambda: {"trained": trained(model, penalty=True)})
    yield {"said": said, "seconds": time.perf_counter() - start}


def _asked(what: str, said: dict[str, str], step: Callable[[], Row]) -> Row:
    """The findings of a step, or none, with what an error of this package says; others go on."""
    try:
        return step()
    except StructSparseError as error:
        said[what] = str(error)
        return {}


def weakest_third(model: keras.Model) -> kss.Plan:
    """A plan without the weakest third of the kernels of each layer that makes no output.

    The next third loses its outermost half-ring where kernels have several.
    """
    network = functional_graph.read(model)
    outputs = {call.name for call in network.calls if set(call.outputs) & set(network.outputs)}
    layers = kernel_layers(network)
    found = {name: _sizes(layer) for name, layer in layers.items() if name not in outputs}
    return kss.Plan({name: sizes for name, sizes in found.items() if 0 in sizes})


def _sizes(layer: keras.Layer) -> list[int]:
    kernel, base = plain_kernel(layer), base_size(layer)
    width = kernel.shape[-1]
    order = np.argsort(np.linalg.norm(kernel.reshape(-1, width), axis=0), kind="stable")
    sizes = np.full(width, base)
    if axes_of(layer).sized:
        sizes[order[: 2 * (width // 3)]] = max(base - 1, 1)
    sizes[order[: width // 3]] = 0
    return sizes.tolist()


def verified(model: keras.Model, plan: kss.Plan) -> Row:
    """The difference of surgery, and that of a network with one more kernel removed."""
    found = kss.verify(model, plan, samples=SAMPLES)
    row = {"error": found.error, "control": found.control, "exact": found.passed}
    return {**row, "verdict": str(found)}


def compared(model: keras.Model, pruned: keras.Model) -> Row:
    """Multiply-adds and parameters before and after, and what surgery said."""
    shapes = [tuple(size or OPEN_SIZE for size in t.shape[1:]) for t in model.inputs]
    is_open = any(None in t.shape[1:] for t in model.inputs)
    given = (shapes if len(shapes) > 1 else shapes[0]) if is_open else None
    found = kss.compare(model, pruned, input_shape=given)
    left = {"params_left": found.params_fraction}
    if found.multiply_adds[0]:
        left["multiply_adds_left"] = found.multiply_adds_fraction
    return {**left, "notes": list(found.notes), "left_out": _counts(found.left_out)}


def _counts(left_out: Mapping[str, Any]) -> dict[str, int]:
    return {reason: len(names) for reason, names in left_out.items()}


def exported(model: keras.Model) -> Row:
    """The difference of the exported network, run without this package."""
    with tempfile.TemporaryDirectory() as folder:
        return {"onnx": kss.export(model, Path(folder, "model.onnx"), "onnx").difference}


def rounding(model: keras.Model) -> float:
    """What float32 differs by from float64 in front of a last softmax, on inputs in [0, 1]."""
    double = in_float64(model)
    places = [place for place, kind in enumerate(kinds(model)) if kind]
    arrays = [np.clip(array / 4 + 0.5, 0, 1) for array in random_inputs(double, 16, 0)]
    inputs = keras.tree.pack_sequence_as(functional_graph.input_structure(model), arrays)
    both = [
        keras.tree.flatten((in_front(each, places) if places else each)(inputs, training=False))
        for each in (double, model)
    ]
    pairs = zip(*[map(keras.ops.convert_to_numpy, outputs) for outputs in both], strict=True)
    return max(relative_difference(exact, found) for exact, found in pairs)


def trained(model: keras.Model, penalty: bool) -> list[float]:
    """The losses of two steps towards zero outputs, with a penalty on all kernels that take one.

    Raises:
        ArithmeticError: A loss or a weight is not finite.
    """
    adam = keras.optimizers.Adam(1e-4)
    found = PrunableLayers.of(model)
    layers = [name for name in found.convolutions if name in found.regularizable]
    if penalty and found.regularizable:
        kss.attach(model, kss.KernelSize(1e-4), layers or list(found.regularizable))
        model.compile(kss.Proximal(adam), "mse")
    else:
        model.compile(adam, "mse")
    arrays = [np.asarray(x, "float32") for x in random_inputs(model, SAMPLES, 0)]
    inputs = keras.tree.pack_sequence_as(functional_graph.input_structure(model), arrays)
    targets = keras.tree.map_structure(np.zeros_like, model.predict(inputs, verbose=0))
    losses = model.fit(inputs, targets, SAMPLES, STEPS, verbose=0).history["loss"]
    weights = [keras.ops.convert_to_numpy(weight) for weight in model.weights]
    if not all(np.isfinite(each).all() for each in (losses, *weights)):
        raise ArithmeticError(f"losses {losses}, or a weight, are not finite")
    return [float(loss) for loss in losses]


# --- all of them ---

HEAD = """# Surgery on public model files

Made by `python benchmarks/public_models.py --dir DIR` ({machine}) with {count} files that others have published on GitHub.
The script has the list; the files are not here. Each is loaded with `kss.load_model` or refused. A plan removes the weakest
third of the kernels of every layer, and the outermost half-ring of the next third; layers that make outputs stay whole. Of the {loaded} files
that load, {pruned} have kernels to remove: the surgery of {exact} of them is exact. {failures}

- **difference**: pruned against masked in float64 (`kss.verify`), relative to the largest output; **control**: the same
  with one more living kernel removed, which must be told apart.
- **work**, **parameters**: per cent left of the multiply-adds and of the parameters.
- **ONNX**: relative difference of the exported pruned network, run without this package (`kss.export`).
- **loss**: in the two steps of a training of the file's network with `KernelSize` and `Proximal`, and of a training of the pruned
  network, towards zero outputs. No loss or weight is NaN.

| file | layers | parameters | kernels | removed | exact | difference | control | work % | parameters % | ONNX | loss with penalty | loss when pruned |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""  # noqa: E501


def table(rows: list[Row]) -> str:
    """The results as a document."""
    loaded = [row for row in rows if "layers" in row]
    failed = [row for row in rows if "failure" in row]
    head = HEAD.format(
        machine=machine(),
        count=len(rows),
        loaded=len(loaded),
        pruned=sum(bool(row.get("removed")) for row in loaded),
        exact=sum(row.get("exact", False) for row in loaded),
        failures=f"**{len(failed)} failed.**" if failed else "No file ended in another error.",
    )
    text = head + "\n".join(map(_line, rows)) + "\n"
    text += _listed("Refused", [(row["file"], row.get("refused")) for row in rows])
    said = [(row["file"], "; ".join(row.get("said", {}).values()) + _rounding(row)) for row in rows]
    text += _listed("Said by a step, which then did nothing", said)
    text += _listed("Failed", [(row["file"], row.get("failure")) for row in rows])
    notes = [(row["file"], _first("; ".join(row.get("notes", ())))) for row in rows]
    return text + _listed("Layers that surgery kept as they are", notes)


def _rounding(row: Row) -> str:
    if "rounding" not in row:
        return ""
    return f" (in Keras itself, float32 and float64 differ by {row['rounding']:.0e} here)"


def _listed(heading: str, entries: list[tuple[str, str | None]]) -> str:
    lines = [f"- {name}: {' '.join(what.split())}" for name, what in entries if what]
    return f"\n{heading}:\n\n" + "\n".join(lines) + "\n" if lines else ""


def _first(text: str, length: int = 300) -> str:
    return text if len(text) <= length else text[:length] + " ..."


def _line(row: Row) -> str:
    if "layers" not in row:
        return f"| {row['file']} | see below |" + " |" * 11
    verdict = {"True": "yes", "False": "**NO**"}.get(str(row.get("exact")), "")
    cells = [
        f"{row['layers']}",
        f"{row['params']:,}",
        str(row.get("kernels", "")),
        str(row.get("removed", "")),
        verdict,
        *(_number(row, key, "{:.0e}") for key in ("error", "control")),
        *(_number(row, f"{key}_left", "{:.1f}", 100) for key in ("multiply_adds", "params")),
        _number(row, "onnx", "{:.0e}"),
        *(", ".join(f"{loss:.3g}" for loss in row.get(key, ())) for key in ("trained", "tuned")),
    ]
    return f"| {row['file']} | {' | '.join(cells)} |"


def _number(row: Row, key: str, form: str, factor: float = 1) -> str:
    return form.format(factor * row[key]) if key in row else ""


def ordered(rows: list[Row]) -> list[Row]:
    """The results in the order of the list."""
    names = [title(*file) for file in FILES]
    return sorted(rows, key=lambda row: names.index(row["file"]))


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only files with one of these in their names")
    parser.add_argument("--dir", type=Path, default=Path(), help="where the files are")
    parser.add_argument("--again", action="store_true", help="forget what was found before")
    parser.add_argument("--examine", help=argparse.SUPPRESS)
    parser.add_argument("--table-only", action="store_true")
    options = parser.parse_args()
    if options.examine:
        steps = examine(options.dir / file_name(options.examine))
        return print_row({"file": options.examine}, steps)
    every, results = [title(*file) for file in FILES], Results(LINES)
    chosen = [name for name in every if any(part in name for part in options.names or [""])]
    if options.again:
        results.forget({"file": chosen})
    if not options.table_only:
        command = [__file__, "--dir", str(options.dir), "--examine"]
        in_processes(results, "file", chosen, command)
    TABLE.write_text(table(ordered(results.rows)))


if __name__ == "__main__":
    main()
