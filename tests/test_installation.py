"""One name is installed at the top level, and nothing else anywhere. To import it changes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_LOADED_BY_INFREC = "import sys, infrec; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
_EVERY_MODULE = """
import importlib, os, pkgutil, signal, threading
before, threads, handler = dict(os.environ), threading.active_count(), signal.getsignal(signal.SIGINT)
import infrec
names = [found.name for found in pkgutil.walk_packages(infrec.__path__, "infrec.") if "__main__" not in found.name]
for name in names:
    importlib.import_module(name)
import ray, jax
from jax._src import xla_bridge
assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
assert not ray.is_initialized() and not xla_bridge.backends_are_initialized()
assert signal.getsignal(signal.SIGINT) is handler
print(len(names))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy: a build leaves files of its own beside the source
    for name in ("infrec", "kernels", "pipeline", "jobs"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    subprocess.run([sys.executable, "-m", "pip", *build], check=True, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_has_one_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.partition("/")[0] for name in names} == {"infrec", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
    sources = {
        str(file.relative_to(ROOT)) for top in ("kernels", "pipeline", "jobs") for file in (ROOT / top).rglob("*.py")
    }
    pages = {f"pipeline/report/report.{kind}" for kind in ("html", "css", "js")}
    assert names >= {f"infrec/{name}" for name in sources | pages} | {"infrec/__init__.py", "infrec/py.typed"}


def test_it_lives_beside_the_package_kernels(wheel: Path, tmp_path: Path) -> None:
    """Hugging Face's, which transformers imports. Python's -S leaves every other package out."""
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", str(tmp_path)]
    index = subprocess.run([*install, "kernels"], capture_output=True, text=True)
    if "No matching distribution found" in index.stderr:  # pip says so without a network, too
        pytest.skip(f"the package kernels cannot be had from the index: {index.stderr.strip().splitlines()[-1]}")
    assert index.returncode == 0, index.stderr
    subprocess.run([*install, "--no-deps", str(wheel)], check=True)
    where = "import infrec, kernels; print(infrec.__file__); print(kernels.__file__)"
    run = subprocess.run(
        [sys.executable, "-S", "-c", where],
        cwd=tmp_path.parent,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert [Path(line).parent for line in run.stdout.splitlines()] == [tmp_path / "infrec", tmp_path / "kernels"]


def test_importing_infrec_loads_nothing_else() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", _LOADED_BY_INFREC], check=True, capture_output=True, text=True
    ).stdout
    assert not {"ray", "jax", "numpy", "pyarrow", "scipy", "typer"} & {*loaded.split()}


def test_importing_any_module_changes_nothing() -> None:
    """No environment variable, no Ray, no device of JAX, no handler of a signal."""
    counted = subprocess.run([sys.executable, "-c", _EVERY_MODULE], cwd=ROOT, capture_output=True, text=True)
    assert counted.returncode == 0, counted.stderr
    assert int(counted.stdout) > 100
