"""What the layers in pyproject.toml cannot say: who may touch Keras' private parts, and when.

The layers themselves are checked by import-linter (`./dev check`, and one test here).
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = "keras_structsparse"
CLONE = Path(__file__).resolve().parents[1]
ROOT = CLONE / PACKAGE
ZOO = CLONE / "models"  # imported as keras_structsparse.models

TOP = frozenset(
    {
        "__init__",
        "__main__",
        "_files",
        "_keras_compat",
        "_typing",
        "_records",
        "_validation",
        "_version",
    }
)
"""All that may lie beside the rooms, with `errors`."""

LAZY = frozenset({"tensorflow", "tensorflow_datasets"})
"""Only inside functions: JAX and torch users have none of them."""

COMMANDS_ONLY = frozenset({"typer", "rich"})
"""Only in the room `cli`."""

KERAS_PRIVATE = frozenset(
    {
        "_accumulators",
        "_auto_config",
        "_average_gradients",
        "_dtype_policy",
        "_flatten_layers",
        "_fn",
        "_fn_kwargs",
        "_functional",
        "_get_variable_index",
        "_inbound_nodes",
        "_initializer",
        "_inputs_struct",
        "_iterations",
        "_keras_history",
        "_model_variables_moving_average",
        "_momentums",
        "_nodes",
        "_nodes_by_depth",
        "_operations",
        "_operations_by_depth",
        "_outbound_nodes",
        "_outputs_struct",
        "_run_through_graph",
        "_track_variable",
        "_trainable_variables",
        "_u",
        "_use_weight_decay",
        "_velocities",
        "_velocity_hats",
        "jax_state_sync",
        "train_function",
    }
)
"""Private names of Keras; one module knows them."""

TYPE_ALIASES = frozenset({"Array", "Tensor", "StrPath"})
"""Defined in `_typing` only."""

COMPATIBILITY = "_keras_compat"
READS_KERAS = frozenset({COMPATIBILITY})


class Import(NamedTuple):
    """One imported dotted name, where, and whether inside a function or for types only."""

    name: str
    line: int
    lazy: bool


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(tree: ast.AST, lazy: bool = False) -> Iterator[Import]:
    """Every import below `tree`; `from a import b` counts as `a.b`."""
    for node in ast.iter_child_nodes(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, line, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (Import(f"{node.module}.{a.name}", line, lazy) for a in node.names)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from imports(node, lazy or inside or _is_type_checking(node))


def _private_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        used = {
            node.attr if isinstance(node, ast.Attribute) else None,
            # getattr(layer, "_inbound_nodes") is the same thing
            node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None,
        }
        for name in used & KERAS_PRIVATE:
            yield f"line {getattr(node, 'lineno', 0)} uses {name}"


def _shared_aliases(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """The aliases of `_typing` that a module defines for itself."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        names = {target.id for target in targets if isinstance(target, ast.Name)}
        yield from ((name, node.lineno) for name in names & TYPE_ALIASES)


def faults(module: str, source: str) -> list[str]:
    """What `source`, standing as a module of the package, does against the rules."""
    tree, room, found = ast.parse(source), module.split(".")[0], []
    for name, line, lazy in imports(tree):
        top = name.split(".")[0]
        if top in LAZY and not lazy:
            found.append(f"line {line} imports {name} at module level")
        if top in COMMANDS_ONLY and room != "cli":
            found.append(f"line {line} imports {name}, which is for commands")
        if name.startswith("keras.src") and module not in READS_KERAS:
            found.append(f"line {line} imports {name}")
        if name == PACKAGE and room != "__init__":
            found.append(f"line {line} imports the whole package")
    if module != "_typing":
        found += [f"line {line} defines {alias} again" for alias, line in _shared_aliases(tree)]
    return found if module in READS_KERAS else [*found, *_private_names(tree)]


def modules() -> Iterator[tuple[str, Path]]:
    """The name below the package, and the file, of every module."""
    for base, folder in ((ROOT, ROOT), (ZOO.parent, ZOO)):
        for path in sorted(folder.rglob("*.py")):
            yield ".".join(path.relative_to(base).with_suffix("").parts), path


def test_the_layers_are_kept() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=CLONE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


LOADED = """
import sys
import keras
before = {name.split(".")[0] for name in sys.modules}
import keras_structsparse
print(*sorted({name.split(".")[0] for name in sys.modules} - before - set(sys.stdlib_module_names)))
"""


def test_importing_the_package_loads_nothing_beside_keras() -> None:
    """No typer, no matplotlib, no tensorflow-datasets: only what Keras loads by itself."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, cwd=CLONE
    )
    assert done.stdout.split() == [PACKAGE]


def test_only_helpers_lie_beside_the_rooms() -> None:
    assert {path.stem for path in ROOT.glob("*.py")} == TOP | {"errors"}


@pytest.mark.parametrize(("module", "path"), [pytest.param(m, p, id=m) for m, p in modules()])
def test_a_module_keeps_the_rules(module: str, path: Path) -> None:
    assert faults(module, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("surgery.plans", "import keras_structsparse as kss", "whole package"),
        ("surgery.plans", "from keras.src.ops import node", "keras.src"),
        ("surgery.plans", "x._inbound_nodes", "_inbound_nodes"),
        ("surgery.plans", "getattr(x, '_keras_history')", "_keras_history"),
        ("graph.functional_graph", "x._nodes_by_depth", "_nodes_by_depth"),
        ("training.optimizer.step_size", "x._velocities", "_velocities"),
        ("surgery.plans", "def f():\n    import rich", "for commands"),
        ("surgery.plans", "Array = Any", "defines Array again"),
        ("export.formats", "import tensorflow as tf", "at module level"),
        ("data.datasets", "class A:\n    import tensorflow_datasets", "at module level"),
    ],
)
def test_a_broken_rule_is_caught(module: str, source: str, complaint: str) -> None:
    (found,) = faults(module, source)
    assert complaint in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("surgery.plans", "import keras"),
        ("cli.tables", "from rich.console import Console"),
        ("export.formats", "def save():\n    import tensorflow as tf"),
        ("data.datasets", "if TYPE_CHECKING:\n    import tensorflow_datasets as tfds"),
        ("_typing", "Array = Any"),
        (COMPATIBILITY, "from keras.src.ops import node\nx._inbound_nodes"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert faults(module, source) == []
