"""How the package is built: folders, imports, lengths; and how often a training reads a graph.

    python benchmarks/house.py                      # this checkout
    python benchmarks/house.py --root OTHER_CLONE   # another one, to compare with

Everything but the last four lines is read from the source; those run a short training and commands.
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = "keras_structsparse"
Edges = Mapping[str, set[str]]

READS = """
import sys, types
import keras, numpy as np
import keras_structsparse as kss
from importlib import import_module
found = {}
def count(places, name):
    for place in places:
        try: function = getattr(import_module(f"keras_structsparse.{place}"), name)
        except (ImportError, AttributeError): continue
        found[name] = 0
        def counted(*args, **options):
            found[name] += 1
            return function(*args, **options)
        for module in list(sys.modules.values()):
            if isinstance(module, types.ModuleType) and module.__name__.startswith("keras_struct"):
                for key, value in list(vars(module).items()):
                    if value is function: setattr(module, key, counted)
count(("graph.functional_graph", "graph"), "read")
count(("graph.prunable_layers", "kernels"), "kernel_layers")
keras.utils.set_random_seed(0)
model = kss.models.build("digits-residual")
x, y = np.random.rand(256, 8, 8, 1).astype("float32"), np.random.randint(0, 10, 256)
kss.attach(model, kss.KernelSize(1e-3), weights="multiply_adds")
optimizer = kss.Proximal(keras.optimizers.SGD(0.1, momentum=0.9))
model.compile(optimizer, "sparse_categorical_crossentropy")
callbacks = [kss.TargetMultiplyAdds(0.4), kss.SparsityLogger()]
model.fit(x, y, batch_size=32, epochs=8, verbose=0, callbacks=callbacks)
print(found["read"], found["kernel_layers"])
"""


def modules(root: Path) -> dict[str, Path]:
    """The modules below the package, by dotted name; the zoo counts as ``models``."""
    found = {}
    for base, folder in ((root / PACKAGE, root / PACKAGE), (root, root / "models")):
        for path in sorted(folder.rglob("*.py")):
            name = ".".join(path.relative_to(base).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imported(path: Path, known: Mapping[str, Path], lazy: bool) -> Iterator[str]:
    """The modules of the package that a file imports; ``lazy``: inside functions as well."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if not lazy and isinstance(node, ast.FunctionDef):
            skipped |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in skipped:
            module = (node.module or "").removeprefix(PACKAGE).removeprefix(".")
            if (node.module or "").split(".")[0] == PACKAGE:
                for alias in node.names:
                    whole = f"{module}.{alias.name}".removeprefix(".")
                    yield whole if whole in known else module


def edges(known: Mapping[str, Path], lazy: bool = False) -> dict[str, set[str]]:
    """Who imports whom, without the entry points that only collect names."""
    names = [name for name in known if name not in ("__init__", "__main__")]
    return {
        name: {t for t in imported(known[name], known, lazy) if t in known and t != name}
        for name in names
    }


def longest(graph: Edges) -> list[str]:
    """The longest chain of imports; an import that closes a circle is passed over."""
    best: dict[str, list[str]] = {}

    def chain(name: str, above: frozenset[str]) -> list[str]:
        if name not in best:
            below = [chain(t, above | {name}) for t in graph.get(name, ()) if t not in above]
            best[name] = [name, *max(below, key=len, default=[])]
        return best[name]

    return max((chain(name, frozenset()) for name in graph), key=len)


def rooms(graph: Edges) -> dict[str, set[str]]:
    """The same between the entries of the package's folder: files and folders."""
    found: dict[str, set[str]] = {}
    for name, targets in graph.items():
        room = name.split(".")[0]
        found.setdefault(room, set()).update({t.split(".")[0] for t in targets} - {room})
    return found


def circles(graph: Edges) -> int:
    """Pairs of entries that reach each other."""

    def reached(name: str) -> set[str]:
        seen: set[str] = set()
        todo = list(graph.get(name, ()))
        while todo:
            if (target := todo.pop()) not in seen:
                seen.add(target)
                todo += graph.get(target, ())
        return seen

    below = {name: reached(name) for name in graph}
    return sum(b in below and a in below[b] for a in graph for b in below[a]) // 2


def long_functions(known: Mapping[str, Path], most: int) -> Iterator[str]:
    """Functions of more lines than ``most``, with their docstrings."""
    for name, path in known.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                text = ast.get_docstring(node, clean=False)
                code = lines - (len(text.splitlines()) if text else 0)
                if code > most:
                    yield f"{name}.{node.name} {code}"


def seconds(root: Path, *command: str) -> float:
    """The median time of three runs of a command."""
    environment = {**os.environ, "PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"}
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, *command], cwd=root, env=environment, check=True, capture_output=True
        )
        times.append(time.perf_counter() - start)
    return sorted(times)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1])
    root = parser.parse_args().root.resolve()
    known = modules(root)
    graph = edges(known)
    of_rooms = rooms(graph)
    lines = {
        name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in known.items()
    }
    importers = [sum(name in targets for targets in edges(known, True).values()) for name in known]
    chain = longest(graph)
    print(f"files at the top of the package: {len(list((root / PACKAGE).glob('*.py')))}")
    print(f"folders of the package: {len({p.parent for p in (root / PACKAGE).glob('*/*.py')})}")
    print(f"modules: {len(known)}, lines: {sum(lines.values())}")
    print(f"floors of imports between files and folders at the top: {len(longest(of_rooms))}")
    print(f"circles of imports between them: {circles(of_rooms)}; of modules: {circles(graph)}")
    print(f"longest chain of imports: {len(chain)}: {' > '.join(chain)}")
    print(f"modules that one other imports: {importers.count(1)}")
    print(f"files over 300 lines: {[f'{n} {k}' for n, k in lines.items() if k > 300]}")
    print(f"functions over 60 lines of code: {list(long_functions(known, 60))}")
    environment = {**os.environ, "PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", READS]
    done = subprocess.run(
        command, env=environment, cwd=root, capture_output=True, text=True, check=True
    )
    reads, look_ups = done.stdout.split()[-2:]
    print(f"graph reads in eight toy epochs with a target and a log: {reads}")
    print(f"look-ups of prunable layers in them: {look_ups}")
    print(f"seconds of import {PACKAGE}: {seconds(root, '-c', f'import {PACKAGE}'):.1f}")
    print(f"seconds of structsparse --help: {seconds(root, '-m', 'structsparse', '--help'):.1f}")


if __name__ == "__main__":
    main()
