"""The zoo lies beside the package in a clone, and in it once installed: every start finds it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PIP = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check")
OFFLINE = ("--no-deps", "--no-index", "--no-build-isolation")

pytestmark = pytest.mark.slow


class Place(NamedTuple):
    """A copy of the clone, and an environment of its own."""

    clone: Path
    python: Path

    def run(self, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
        environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        return subprocess.run(
            words, cwd=cwd, env=environ, capture_output=True, text=True, check=False
        )


def place(folder: Path, install: tuple[str, ...]) -> Place:
    """Copy the clone and install it in a new environment, with the dependencies of this one."""
    clone, environment = folder / "clone", folder / "venv"
    ignored = shutil.ignore_patterns(".*", "tests", "docs", "benchmarks", "tutorials")
    shutil.copytree(ROOT, clone, ignore=ignored)
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    (packages,) = environment.glob("lib/python*/site-packages")
    # A folder on the path, whose own .pth files (an editable install) are not executed.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    if install:
        words = (*PIP, "--python", str(python), "install", *OFFLINE, *install)
        done = subprocess.run(words, cwd=clone, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        shutil.rmtree(clone / "build", ignore_errors=True)  # of setuptools
    return Place(clone, python)


IMPORTS = "import keras_structsparse as kss; from keras_structsparse.models import cards; "
IMPORTS += "print(kss.models.__file__); assert len(cards()); kss.models.build('digits-plain')"
PROFILE = ("profile", "digits-residual-40pc")  # in the folder of the zoo

STARTS = {
    "module": (("-m", "keras_structsparse", *PROFILE), "total"),
    "help": (("-m", "keras_structsparse", "--help"), "Usage: "),
    "launcher": (("-c", "import structsparse; structsparse.main()", *PROFILE), "total"),
}
INSTALLS = {"nothing": (), "plain": (".",), "editable": ("-e", ".")}


@pytest.mark.parametrize("kind", INSTALLS)
def test_every_start_finds_the_zoo(kind: str, tmp_path: Path) -> None:
    """In the clone's root the clone's own files are taken, elsewhere those that are installed."""
    found, elsewhere = place(tmp_path, INSTALLS[kind]), tmp_path / "elsewhere"
    elsewhere.mkdir()
    python, command = str(found.python), str(found.python.with_name("structsparse"))
    for cwd in (found.clone, elsewhere) if INSTALLS[kind] else (found.clone,):
        done = found.run(cwd, python, "-c", IMPORTS)
        assert done.returncode == 0, done.stderr
        in_environment = Path(done.stdout.strip()).is_relative_to(found.python.parents[1])
        assert in_environment == (kind == "plain" and cwd == elsewhere)
        for words, said in STARTS.values():
            done = found.run(cwd, python, *words)
            assert said in done.stdout, (words, cwd, done.stderr)
        if INSTALLS[kind]:
            done = found.run(cwd, command, *PROFILE)
            assert "total" in done.stdout, (cwd, done.stderr)


def test_a_clone_that_does_not_look_beside_the_package_is_caught(tmp_path: Path) -> None:
    """The control: with a plain installation, Python started in the clone takes the clone."""
    found = place(tmp_path, (".",))
    init = found.clone / "keras_structsparse" / "__init__.py"
    text = init.read_text("utf-8")
    assert "__path__.append" in text
    init.write_text(text.replace("__path__.append", "list().append"), "utf-8")
    done = found.run(found.clone, str(found.python), "-c", IMPORTS)
    assert done.returncode
    assert "models" in done.stderr
