"""The accelerator benchmark runs on a machine that has JAX and neither Ray nor the rest of the pipeline's packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import scipy.sparse as sp

from benchmarks import gpu
from infrec.kernels.inner_products import accelerator_inner_products

ROOT = Path(__file__).parents[1]
ABSENT = ("ray", "pyarrow", "fsspec", "optax", "threadpoolctl", "typer", "rich", "psutil")
ABSENT += ("infrec.pipeline", "infrec.jobs")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m benchmarks.gpu arguments` on a CPU, where none of `ABSENT` can be imported."""
    program = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({ABSENT!r})); sys.argv[1:] = {arguments!r}; "
        "runpy.run_module('benchmarks.gpu', run_name='__main__', alter_sys=True)"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_small_shapes_run_without_ray_and_give_every_figure(tmp_path: Path) -> None:
    out = tmp_path / "results" / "gpu.json"
    finished = run("--small", "--out", str(out))
    assert finished.returncode == 0, finished.stderr
    report = json.loads(finished.stdout)
    assert report == json.loads(out.read_text())
    assert report["platform"] == report["device"] == "cpu"
    assert {"date", "driver", "jax", "jaxlib"} <= report.keys()
    assert report["small"]
    assert report["synthetic"]
    assert "not supported" in report["gemm"]["tf32"]["refused"]
    for precision in ("int8→int32", "bf16→fp32", "fp32"):
        assert report["gemm"][precision]["tflops"] > 0
        assert all(gram["products"][precision]["exact"] for gram in report["gram"])
    assert all(rate > 0 for rate in report["copies_gb_a_second"].values())
    for gram in report["gram"]:
        assert gram["binary"]["relative_error"] == 0
        for route in (gram["binary"], gram["degree_normalised"]):
            assert route["tflops"].keys() == route["share_of_gemm"].keys()
            assert all(rate > 0 for rate in route["tflops"].values())
    for step in report["distillation_step"]:
        assert step["seconds"]["whole"] > step["floor_seconds"] > 0
    for factor in report["cholesky"]:
        assert factor["tflops"] > 0
        assert factor["residual"] < 1e-4
    assert report["checks"]
    assert all(report["checks"].values())


def test_a_cpu_is_refused_the_large_shapes() -> None:
    finished = run()
    assert finished.returncode == 2
    assert "--small" in finished.stderr


def test_a_wrong_result_fails_the_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts that a bfloat16 has rounded: it holds whole numbers up to 256, the first user has 403 items."""

    def rounded(rows: sp.csr_array, columns: sp.csr_array) -> jax.Array:
        return accelerator_inner_products(rows, columns).astype(jnp.bfloat16).astype(jnp.float32)

    monkeypatch.setattr(gpu, "accelerator_inner_products", rounded)
    monkeypatch.setattr(sys, "argv", ["gpu", "--small"])
    assert gpu.main() == 1
    captured = capsys.readouterr()
    wrong = {name for name, passed in json.loads(captured.out)["checks"].items() if not passed}
    assert "int8→int32 inner products of (300, 403, 300)" in wrong
    assert "failed: int8→int32 inner products" in captured.err
