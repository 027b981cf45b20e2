"""The map of the package, kept by a test: who may import whom, and what nobody may touch."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = "keras_structsparse"
ROOT = Path(__file__).resolve().parents[1] / PACKAGE
ZOO = ROOT.parent / "models"  # imported as keras_structsparse.models

EVERYBODY = frozenset({"_version", "errors", "_files", "_checks"})
"""Importable by all; they import nothing of ours."""

ANYTHING = frozenset({"*"})

ALLOWED: dict[str, frozenset[str]] = {
    "_version": frozenset(),
    "errors": frozenset(),
    "_files": frozenset(),
    "_checks": frozenset(),
    "groups": frozenset(),
    "widths": frozenset(),
    "norms": frozenset({"groups"}),
    "frontier": frozenset(),
    "curves": frozenset({"frontier"}),
    "marks": frozenset(),
    "datasets": frozenset({"digits", "raw_files"}),
    "digits": frozenset(),
    "raw_files": frozenset(),
    "latency": frozenset(),
    "graph": frozenset(),
    "kernels": frozenset({"graph"}),
    "copying": frozenset({"graph"}),
    "penalties": frozenset({"groups", "norms"}),
    "pairs": frozenset({"groups", "norms"}),
    "prox_squared": frozenset({"groups", "norms", "penalties"}),
    "prox_joint": frozenset({"norms"}),
    "links": frozenset({"norms"}),
    "linked": frozenset({"links", "norms", "pairs", "penalties"}),
    "alpha": frozenset(),
    "layouts": frozenset(),
    "structured": frozenset(
        {
            "alpha",
            "groups",
            "layouts",
            "linked",
            "links",
            "norms",
            "pairs",
            "penalties",
            "prox_squared",
        }
    ),
    "regularizers": frozenset({"groups", "links", "norms", "penalties", "structured"}),
    "streams": frozenset({"graph"}),
    "linking": frozenset({"graph", "groups", "links", "streams"}),
    "scales": frozenset({"copying", "graph", "kernels"}),
    "affine": frozenset(),
    "folding": frozenset({"affine", "copying", "graph"}),
    "counting": frozenset({"graph", "kernels"}),
    "summaries": frozenset({"graph"}),
    "tracing": frozenset(),
    "opening": frozenset({"copying", "graph", "tracing"}),
    "profiles": frozenset({"summaries", "counting", "graph", "kernels"}),
    "architectures": frozenset({"graph", "profiles", "summaries"}),
    "models": frozenset({"models"}),
    "attachment": frozenset({"graph", "kernels", "linking", "links", "regularizers", "structured"}),
    "batches": frozenset({"groups", "norms", "penalties", "structured"}),
    "coupling": frozenset({"batches", "groups", "links", "norms", "prox_joint"}),
    "joint": frozenset({"batches", "coupling", "norms", "penalties"}),
    "moves": frozenset(),
    "replicas": frozenset(),
    "targets": frozenset({"batches", "layouts", "structured"}),
    "optimizers": frozenset({"alpha", "batches", "joint", "moves", "replicas", "targets"}),
    "thresholds": frozenset({"graph", "groups", "kernels", "streams", "widths"}),
    "plans": frozenset({"groups", "graph", "kernels", "copying", "thresholds"}),
    "readings": frozenset({"correlations", "graph", "groups", "kernels", "thresholds"}),
    "estimates": frozenset({"counting", "graph", "kernels", "surgery"}),
    "cutting": frozenset(),
    "fitting": frozenset(
        {"attachment", "cutting", "estimates", "plans", "profiles", "readings", "surgery"}
        | {"thresholds"}
    ),
    "budget": frozenset({"alpha", "fitting", "plans", "readings", "structured", "surgery"}),
    "correlations": frozenset(),
    "monitoring": frozenset(
        {"ancestry", "attachment", "estimates", "groups", "plans", "profiles", "readings"}
    ),
    "surgery": frozenset({"surgery", "plans", "graph", "groups", "copying", "widths"}),
    "training": frozenset(
        {"alpha", "ancestry", "attachment", "budget", "building", "optimizers", "regularizers"}
        | {"shrinking"}
    ),
    "forms": frozenset({"regularizers"}),
    "reestimation": frozenset({"graph"}),
    "recipes": frozenset({"training"}),
    "pipelines": frozenset({"datasets", "digits", "recipes"}),
    "recipe_runs": frozenset({"attachment", "pipelines", "recipes", "regularizers", "training"}),
    "selection": frozenset({"graph", "plans", "training"}),
    "carrying": frozenset({"alpha", "attachment", "optimizers", "surgery"}),
    "ancestry": frozenset({"graph", "kernels", "plans", "surgery"}),
    "reattachment": frozenset(
        {"ancestry", "attachment", "graph", "kernels", "linking", "links", "regularizers"}
        | {"structured"}
    ),
    "shrinking": frozenset(
        {"ancestry", "attachment", "budget", "carrying", "estimates", "graph", "kernels"}
        | {
            "building",
            "feeding",
            "pace",
            "plans",
            "profiles",
            "reattachment",
            "replicas",
            "structured",
            "surgery",
        }
    ),
    "pace": frozenset(),
    "feeding": frozenset(),
    "building": frozenset({"feeding", "replicas"}),
    "calibration": frozenset({"graph", "latency", "profiles", "surgery", "widths"}),
    "verification": frozenset({"plans", "surgery", "graph", "kernels", "copying", "folding"}),
    "portability": frozenset(),
    "export": frozenset({"graph", "optimizers", "regularizers"}),
    "plots": frozenset({"curves", "frontier", "groups", "plans", "plots", "profiles"}),
    "results": frozenset(
        {"frontier", "graph", "kernels", "latency", "plots", "profiles", "verification"}
    ),
    "sweeps": ANYTHING,
    "drawing": frozenset(),
    "correlation_drawings": frozenset({"drawing", "plots", "sweeps"}),
    "kernel_drawings": frozenset({"drawing", "export", "plots", "sweeps"}),
    "drawings": frozenset(
        {"correlation_drawings", "curves", "drawing", "kernel_drawings"}
        | {"marks", "plots", "sweeps"}
    ),
    "report": frozenset({"drawing", "drawings", "marks", "plots", "sweeps"}),
    "quickstart": ANYTHING,
    "console": frozenset({"plans", "sweeps"}),
    "listings": frozenset({"architectures", "models", "recipes"}),
    "options": frozenset(),
    "jobs": ANYTHING,
    "export_jobs": ANYTHING,
    "sweep_commands": ANYTHING,
    "recipe_commands": ANYTHING,
    "recipe_jobs": ANYTHING,
    "sweep_jobs": ANYTHING,
    "training_jobs": ANYTHING,
    "cli": ANYTHING,
    "__main__": ANYTHING,
    "__init__": ANYTHING,
}
"""Module (a subpackage counts as one) -> the modules of ours that it may import."""

PRIVATE_TO_ALL = frozenset({"cli", "__main__"})
"""Even where anything is allowed, nobody but the entry points imports these."""

LAZY = frozenset({"tensorflow", "tensorflow_datasets"})
"""Only inside functions: JAX and torch users have none of them."""

GRAPH_ATTRIBUTES = frozenset(
    {
        "_inbound_nodes",
        "_outbound_nodes",
        "_keras_history",
        "_nodes",
        "_nodes_by_depth",
        "_operations",
        "_operations_by_depth",
        "_run_through_graph",
        "_functional",
    }
)
"""Private Keras names; graph.py is the only file that knows them."""


class Import(NamedTuple):
    """One imported dotted name, where, and whether inside a function or for types only."""

    name: str
    line: int
    lazy: bool


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _names(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        levels = package.split(".")
        parents = levels[: len(levels) - node.level + 1] if node.level else []
        start = [*parents, *([node.module] if node.module else [])]
        yield from (".".join([*start, alias.name]) for alias in node.names)


def imports(tree: ast.AST, package: str = PACKAGE, lazy: bool = False) -> Iterator[Import]:
    """Every import below `tree`; `from a import b` counts as `a.b`."""
    for node in ast.iter_child_nodes(tree):
        for name in _names(node, package):
            yield Import(name, getattr(node, "lineno", 0), lazy)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from imports(node, package, lazy or inside or _is_type_checking(node))


def _own(name: str) -> str | None:
    """The module of ours that a dotted name means; None for others and for the package itself."""
    parts = name.split(".")
    return parts[1] if parts[0] == PACKAGE and len(parts) > 1 else None


def _bad_arrow(module: str, target: str) -> bool:
    allowed = ALLOWED.get(module, frozenset())
    if target in EVERYBODY:
        return False
    if target in PRIVATE_TO_ALL:
        return module not in PRIVATE_TO_ALL
    return target not in allowed and allowed != ANYTHING


def _import_faults(module: str, tree: ast.Module, package: str) -> Iterator[str]:
    if module not in ALLOWED:
        yield f"{module} is not on the map: give it a line in ALLOWED"
    for name, line, lazy in imports(tree, package):
        target = _own(name)
        if target is not None and _bad_arrow(module, target):
            yield f"{module}:{line} imports {target}"
        if target is None and name.split(".")[0] == PACKAGE and ALLOWED.get(module) != ANYTHING:
            yield f"{module}:{line} imports the whole package"
        if name.startswith("keras.src") and module != "graph":
            yield f"{module}:{line} imports {name}"
        if name.split(".")[0] in LAZY and not lazy:
            yield f"{module}:{line} imports {name} at module level"


def _attribute_faults(module: str, tree: ast.Module) -> Iterator[str]:
    if module == "graph":
        return
    for node in ast.walk(tree):
        used = {
            node.attr if isinstance(node, ast.Attribute) else None,
            # getattr(layer, "_inbound_nodes") is the same thing
            node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None,
        }
        for name in used & GRAPH_ATTRIBUTES:
            yield f"{module}:{getattr(node, 'lineno', 0)} uses {name}"


def faults(module: str, source: str, package: str = PACKAGE) -> list[str]:
    """What `source`, standing as `module` of the map, does against the rules."""
    tree = ast.parse(source)
    return [*_import_faults(module, tree, package), *_attribute_faults(module, tree)]


def modules() -> Iterable[tuple[str, Path]]:
    """(name on the map, file) of every module; all files of a subpackage share its name."""
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT).with_suffix("").parts[0], path
    for path in sorted(ZOO.glob("*.py")):
        yield "models", path


def place(path: Path) -> Path:
    """Where a file is imported from, below the package."""
    return path.relative_to(ROOT if path.is_relative_to(ROOT) else ZOO.parent)


@pytest.mark.parametrize(
    ("module", "path"), [pytest.param(m, p, id=str(place(p))) for m, p in modules()]
)
def test_the_arrows_of_the_map_are_kept(module: str, path: Path) -> None:
    package = ".".join([PACKAGE, *place(path).parent.parts])
    assert faults(module, path.read_text(encoding="utf-8"), package) == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("groups", "import keras_structsparse.plans", "imports plans"),
        ("groups", "from keras_structsparse import plans", "imports plans"),
        ("groups", "def f():\n    from keras_structsparse.plans import Plan", "imports plan"),
        ("plans", "from . import surgery", "imports surgery"),
        ("surgery", "from keras_structsparse.regularizers import KernelSize", "regularizers"),
        ("quickstart", "from keras_structsparse.cli import main", "imports cli"),
        ("__init__", "from keras_structsparse import cli", "imports cli"),
        ("plans", "import keras_structsparse as kss", "whole package"),
        ("errors", "from keras_structsparse.graph import Graph", "imports graph"),
        ("plans", "from keras.src.ops import node", "keras.src"),
        ("plans", "x._inbound_nodes", "_inbound_nodes"),
        ("plans", "getattr(x, '_keras_history')", "_keras_history"),
        ("export", "import tensorflow as tf", "at module level"),
        ("datasets", "class A:\n    import tensorflow_datasets", "at module level"),
        ("novelty", "", "not on the map"),
    ],
)
def test_a_broken_rule_is_caught(module: str, source: str, complaint: str) -> None:
    found = faults(module, source)
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("plans", "from keras_structsparse.groups import half_rings\nimport keras"),
        ("plans", "from keras_structsparse.errors import PlanError"),
        ("surgery", "from keras_structsparse.surgery.rules import merge"),
        ("export", "def save():\n    import tensorflow as tf"),
        ("datasets", "if TYPE_CHECKING:\n    import tensorflow_datasets as tfds"),
        ("graph", "from keras.src.ops import node\nx._inbound_nodes"),
        ("cli", "from keras_structsparse import quickstart, _version"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert faults(module, source) == []
