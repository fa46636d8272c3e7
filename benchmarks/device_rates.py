"""Rates of the device under JAX by itself, which `benchmarks.gpu` compares with: matrix products and copies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jaxtyping import Array

RUNS = 5
SAMPLE = 64
"""Rows that are checked against the truth."""
FP32_ERROR = 2e-5
"""The relative error that inner products with float32 sums may have. TF32, which loses 3e-4, may not pass for them."""

_F32, _ALGORITHM = jnp.float32, jax.lax.DotAlgorithmPreset
PRECISIONS: dict[str, tuple[Any, Any, Any]] = {
    # operands, sums, precision
    "int8→int32": (jnp.int8, jnp.int32, None),
    "bf16→fp32": (jnp.bfloat16, _F32, None),
    "tf32": (_F32, _F32, _ALGORITHM.TF32_TF32_F32),
    "bf16×6": (_F32, _F32, _ALGORITHM.BF16_BF16_F32_X6),
    "fp32": (_F32, _F32, jax.lax.Precision.HIGHEST),
}
_STARTED = time.perf_counter()
Checks = dict[str, bool]
"""By name, whether a result was right: a fast wrong figure is none."""


def environment() -> dict[str, Any]:
    """Return the place and the versions that the figures were measured with."""
    device, query = jax.devices()[0], ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    asked = device.platform == "gpu" and shutil.which(query[0])
    say(f"{device.device_kind} ({device.platform}), JAX {jax.__version__}")
    return {
        "date": date.today().isoformat(),
        "platform": device.platform,
        "device": device.device_kind,
        "driver": subprocess.run(query, capture_output=True, text=True).stdout.split("\n")[0] if asked else None,
        "backend": device.client.platform_version,
        "host_cores": os.cpu_count(),
        "python": sys.version.split()[0],
        **{package.__name__: package.__version__ for package in (jax, jaxlib, np)},
    }


def gemm_rates(size: int, checks: Checks) -> dict[str, Any]:
    """TFLOP/s of square products in each precision that the device has, with the relative error of a sample."""
    figures: dict[str, Any] = {}
    for name, (operands, _, _) in PRECISIONS.items():
        keys = jax.random.split(jax.random.key(0))
        if operands == jnp.int8:
            left, right = (jax.random.randint(key, (size, size), -127, 128, jnp.int8) for key in keys)
        else:
            left, right = (jax.random.normal(key, (size, size), operands) for key in keys)
        try:
            sample = np.asarray(product(left, right, precision=name)[:SAMPLE, :SAMPLE], np.float64)
        except (ValueError, jax.errors.JaxRuntimeError) as error:  # not on this device
            figures[name] = {"refused": str(error)}
            continue
        truth = np.asarray(left[:SAMPLE], np.float64) @ np.asarray(right[:SAMPLE], np.float64).T
        tflops = 2e-12 * size**3 / seconds(product, left, right, precision=name)
        figures[name] = {"size": size, "tflops": tflops, "relative_error": relative_error(sample, truth)}
        say(f"product {size}³ {name:<12}{tflops:9.3f} TFLOP/s, error {figures[name]['relative_error']:.0e}")
    checks["int8 products are exact"] = figures["int8→int32"]["relative_error"] == 0
    checks["fp32 products are no TF32"] = figures["fp32"]["relative_error"] <= FP32_ERROR
    return figures


@partial(jax.jit, static_argnames="precision")
def product(left: Array, right: Array, *, precision: str) -> Array:
    """left · rightᵀ."""
    _, sums, inside = PRECISIONS[precision]
    along_rows = (((1,), (1,)), ((), ()))
    return jax.lax.dot_general(left, right, along_rows, precision=inside, preferred_element_type=sums)


def copies(count: int) -> dict[str, float]:
    """GB/s: bytes read and written within the device; bytes moved between it and NumPy arrays on the host."""
    on_host, negate = np.ones(count // 4, np.float32), jax.jit(jnp.negative)
    on_device = jax.device_put(on_host)
    # An array keeps what it once gave to the host
    fresh = iter(jax.block_until_ready([negate(on_device) for _ in range(RUNS + 1)]))
    figures = {
        "within_device": 2e-9 * count / seconds(negate, on_device),
        "host_to_device": 1e-9 * count / seconds(jax.device_put, on_host),
        "device_to_host": 1e-9 * count / seconds(lambda: np.asarray(next(fresh))),
    }
    say("copies, GB/s: " + ", ".join(f"{name.replace('_', ' ')} {rate:.1f}" for name, rate in figures.items()))
    return figures


def seconds(work: Callable[..., Any], *arguments: Any, **options: Any) -> float:
    """The median of several runs after a first one, which compiles."""
    times = []
    for _ in range(RUNS + 1):
        started = time.perf_counter()
        jax.block_until_ready(work(*arguments, **options))
        times.append(time.perf_counter() - started)
    return median(times[1:])


def relative_error(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def has_room(count: int) -> bool:
    stats = jax.devices()[0].memory_stats()  # a CPU has none
    return stats is None or count <= stats["bytes_limit"]


def peak_gb() -> float | None:
    stats = jax.devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] / 1e9 if stats else None


def say(line: str) -> None:
    print(f"{time.perf_counter() - _STARTED:6.1f} s  {line}", file=sys.stderr, flush=True)
