"""Measures the kernels on an accelerator: Gram blocks, a distillation step and Cholesky against its own rates.

    python -m benchmarks.gpu [--small] [--out benchmarks/results/gpu.json]

Needs JAX, NumPy, SciPy and jaxtyping alone: no Ray, no data. Measures on JAX's default device, and first its own rates
of matrix products and copies, of which all others are given as shares. Everything is synthetic and seeded. What is
timed was compiled and run before; a figure is the median of several runs, each waited for. What is measured is written
after each kind of figures. Exits with 1 where a count is not exact, a residual or an error too large or a gradient not
finite.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array

from benchmarks.device_rates import (
    FP32_ERROR,
    PRECISIONS,
    SAMPLE,
    Checks,
    copies,
    environment,
    gemm_rates,
    has_room,
    peak_gb,
    product,
    relative_error,
    say,
    seconds,
)
from infrec.kernels.inner_products import accelerator_inner_products, dense_inner_products, product_operand
from infrec.kernels.kernel_matrix import KernelRows, kernel_block
from infrec.kernels.normalisation import DegreeNormalisation, Exponents
from infrec.kernels.ntk import NTK, ntk_block
from infrec.kernels.outer_loss import Batch, Gradients, InnerModel, UsersLoss
from infrec.kernels.sampler import Sampler
from infrec.kernels.sparse import chosen_entries

PROBES = 16
"""Right-hand sides that a factor is checked with."""
RESIDUAL = 1e-3
"""The largest residual of a system at λ = 1. Float32 leaves 8e-6 of one of 4,096 users, and more as systems grow;
TF32 loses 5,000 times as much in each operation."""
MEAN_INTERACTIONS = 100
STEP_LAMBDA = 0.01
DEGREE_NORMALISED = Exponents(user=0.4, item=0.25)
NETWORK = NTK()


class GramShape(NamedTuple):
    users: int
    items: int
    block: int
    """Users of a block: the lower blocks are computed one after another."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    gemm: int
    copied_bytes: int
    grams: tuple[GramShape, ...]
    budget: int
    draws: int
    steps: tuple[tuple[int, int], ...]
    """Users of a batch, items."""
    cholesky: tuple[int, ...]
    items: int
    """The catalogue of the users whose kernel matrix is factored."""


FULL = Sizes(
    gemm=8_192,
    copied_bytes=1 << 28,
    grams=(
        GramShape(6_040, 3_706, 512),  # as tiles, which is how `fit` asks for them
        GramShape(6_040, 3_706, 6_040),
        GramShape(16_384, 17_770, 16_384),
        GramShape(32_768, 40_000, 8_192),
    ),
    budget=500,
    draws=200,
    steps=tuple((users, items) for items in (3_706, 17_770) for users in (1_536, 6_040)),
    cholesky=(4_096, 8_192, 16_384, 32_768),
    items=3_706,
)
SMALL = Sizes(
    gemm=256,
    copied_bytes=1 << 20,
    grams=(GramShape(300, 403, 128), GramShape(300, 403, 300)),
    budget=20,
    draws=10,
    steps=((96, 203),),
    cholesky=(256,),
    items=203,
)

EXACT_ON_BINARY = ("int8→int32", "bf16→fp32", "fp32")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny shapes: whether it works, on a CPU, too")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if jax.default_backend() == "cpu" and not arguments.small:
        parser.error("JAX's default device is a CPU, which would take hours: give --small")
    sizes, checks = SMALL if arguments.small else FULL, Checks()
    report: dict[str, Any] = {**environment(), "small": arguments.small, "synthetic": True}
    for figures in measured(sizes, checks):
        report |= {**figures, "checks": checks}
        if arguments.out:
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(report, indent=1, ensure_ascii=False))
    failed = [name for name, passed in checks.items() if not passed]
    say("failed: " + ", ".join(failed) if failed else f"all {len(checks)} checks passed")
    return 1 if failed else 0


def measured(sizes: Sizes, checks: Checks) -> Iterator[dict[str, Any]]:
    """All figures, kind by kind. The device's peak memory stands after each: it only ever grows."""
    rates = gemm_rates(sizes.gemm, checks)
    yield {"gemm": rates, "copies_gb_a_second": copies(sizes.copied_bytes)}
    yield {"gram": [gram(shape, rates, checks) for shape in sizes.grams], "gram_peak_gb": peak_gb()}
    steps = [step(users, items, sizes, rates, checks) for users, items in sizes.steps]
    yield {"distillation_step": steps, "distillation_peak_gb": peak_gb()}
    factors = [cholesky(n, sizes.items, rates, checks) for n in sizes.cholesky if has_room(20 * n**2)]
    yield {"cholesky": factors, "cholesky_peak_gb": peak_gb()}


def gram(shape: GramShape, rates: dict[str, Any], checks: Checks) -> dict[str, Any]:
    """The lower blocks of a Gram matrix of binary and of degree-normalised rows."""
    binary = users_rows(shape.users, shape.items)
    normalised = DegreeNormalisation.of(binary, DEGREE_NORMALISED)(binary)
    say(f"Gram of {shape.users:,} users × {shape.items:,} items in blocks of {shape.block:,}, TFLOP/s:")
    return {
        **shape._asdict(),
        "interactions": binary.nnz,
        "products": block_products(shape, binary, rates, checks),
        "binary": gram_route(shape, binary, "int8→int32", rates, checks),
        "degree_normalised": gram_route(shape, normalised, "fp32", rates, checks),
    }


def block_products(shape: GramShape, binary: sp.csr_array, rates: dict[str, Any], checks: Checks) -> dict[str, Any]:
    """The inner products of a block of binary rows alone, on the device, in every precision that keeps them exact."""
    rows, figures = binary[: shape.block], {}
    truth = (rows[:SAMPLE].astype(np.int64) @ rows.T.astype(np.int64)).toarray()
    for name in EXACT_ON_BINARY:
        operand = product_operand(rows).astype(PRECISIONS[name][0])
        exact = bool((np.asarray(product(operand, operand, precision=name)[:SAMPLE]) == truth).all())
        checks[f"{name} Gram of {tuple(shape)} is exact"] = exact
        tflops = 2e-12 * shape.items * shape.block**2 / seconds(product, operand, operand, precision=name)
        figures[name] = {"tflops": tflops, "share_of_gemm": tflops / rates[name]["tflops"], "exact": exact}
        say(f"  {name:<12}{tflops:9.3f}, {figures[name]['share_of_gemm']:.0%} of the square product")
    return figures


def gram_route(
    shape: GramShape, rows: sp.csr_array, precision: str, rates: dict[str, Any], checks: Checks
) -> dict[str, Any]:
    """A block step by step, ending with what the pipeline calls for every block: sparse rows in, kernel on the host.

    That last call is `kernel_block`, which takes another route where the device is a CPU.
    """
    users, block = KernelRows.of(rows), rows[: shape.block]
    operand, squares = product_operand(block), jnp.asarray(users.squares[: shape.block])
    sample, wide = np.asarray(accelerator_inner_products(block[:SAMPLE], block)), block.astype(np.float64)
    error = relative_error(sample, (wide[:SAMPLE] @ wide.T).toarray())
    checks[f"{precision} inner products of {tuple(shape)}"] = error <= (FP32_ERROR if precision == "fp32" else 0)
    spans = [slice(start, min(start + shape.block, shape.users)) for start in range(0, shape.users, shape.block)]
    lower = [(users[above], users[span]) for i, span in enumerate(spans) for above in spans[: i + 1]]

    def kernel_on_device() -> Array:
        return ntk_block(NETWORK, dense_inner_products(operand, operand), squares, squares, items=shape.items)

    def kernel_on_host() -> None:
        for one, other in lower:
            kernel_block(NETWORK, one, other)

    flops = 2e-12 * shape.items * shape.block**2
    all_flops = 2e-12 * shape.items * sum(len(one.squares) * len(other.squares) for one, other in lower)
    tflops = {
        "products": flops / seconds(dense_inner_products, operand, operand),
        "products_and_ntk": flops / seconds(kernel_on_device),
        "sparse_rows_to_products": flops / seconds(accelerator_inner_products, block, block),
        "sparse_rows_to_kernel_on_host": all_flops / (total := seconds(kernel_on_host)),
    }
    say(f"  {precision}, " + ", ".join(f"{name.replace('_', ' ')} {rate:.3f}" for name, rate in tflops.items()))
    shares = {name: rate / rates[precision]["tflops"] for name, rate in tflops.items()}
    return {"tflops": tflops, "share_of_gemm": shares, "all_blocks_seconds": total, "relative_error": error}


def step(users: int, items: int, sizes: Sizes, rates: dict[str, Any], checks: Checks) -> dict[str, Any]:
    """One step of Distill-CF but for Adam, with the summary and its derivatives passing through the host, as there."""
    rows, budget = users_rows(users, items), sizes.budget
    dropped = np.random.default_rng(1).random(rows.nnz) < 0.5
    context = chosen_entries(rows, ~dropped)
    batch = Batch(context, chosen_entries(rows, dropped), context, np.ones(users, np.float32))
    logits, sampler = jnp.asarray(users_rows(budget, items).toarray()), Sampler(draws=sizes.draws)

    @jax.jit
    def forward(logits: Array) -> tuple[InnerModel, Any]:
        summary, through_sampler = jax.vjp(partial(sampler.__call__, key=jax.random.key(0)), logits)
        return InnerModel.of(NETWORK, summary, STEP_LAMBDA), through_sampler

    @jax.jit
    def back(through_sampler: Any, model: InnerModel, gradients: Gradients) -> Array:
        return through_sampler(model.pull_back(NETWORK, STEP_LAMBDA, gradients))[0]

    def on_users(model: InnerModel, factors: Any = jnp.bfloat16) -> Gradients:
        on_host = InnerModel(*(np.asarray(array) for array in model))
        return UsersLoss(NETWORK, on_host, factors=factors).gradients(batch)

    def whole() -> Array:
        model, through_sampler = forward(logits)
        return back(through_sampler, model, on_users(model))

    model, through_sampler = forward(logits)
    gradients = on_users(model)
    gradient = np.asarray(whole())
    checks[f"gradients of {users} × {items} are finite"] = bool(np.isfinite(gradient).all() and gradient.any())
    taken = {
        "sample_and_solve": seconds(forward, logits),
        "users": seconds(on_users, model),
        "users_in_fp32": seconds(on_users, model, jnp.float32),
        "pull_back": seconds(back, through_sampler, model, gradients),
        "whole": seconds(whole),
    }
    # 5 products for the users, 4 in the sampler, 6 of budget² × items in K_SS and the solve, there and back
    flops = 2e-12 * budget * items * (5 * users + 4 * sizes.draws + 6 * budget)
    # 3 of the users' in bfloat16
    rounded = 2e-12 * budget * items * 3 * users
    floor = (flops - rounded) / rates["fp32"]["tflops"] + rounded / rates["bf16→fp32"]["tflops"]
    say(f"step, budget {budget}, {users:,} users × {items:,} items, ms:")
    shown = {**taken, "floor": floor}
    say("  " + ", ".join(f"{name.replace('_', ' ')} {1e3 * value:.2f}" for name, value in shown.items()))
    return {"users": users, "items": items, "budget": budget, "seconds": taken, "floor_seconds": floor}


def cholesky(size: int, items: int, rates: dict[str, Any], checks: Checks) -> dict[str, Any]:
    """The factor of K + c·1 at λ = 1 in float32, against the fp32 product, and what a solve with it leaves over."""
    rows = KernelRows.of(users_rows(size, items))
    operand, squares = product_operand(rows.rows), jnp.asarray(rows.squares)
    kernel = ntk_block(NETWORK, dense_inner_products(operand, operand), squares, squares, items=items)
    system = jax.jit(lambda kernel: kernel + jnp.trace(kernel) / size * jnp.eye(size))(kernel)
    del kernel
    factorise = jax.jit(partial(jax.lax.linalg.cholesky, symmetrize_input=False))
    right = jax.random.rademacher(jax.random.key(0), (size, PROBES), jnp.float32)
    solved = jax.scipy.linalg.cho_solve((factorise(system), True), right)
    left_over = jnp.matmul(system, solved, precision=jax.lax.Precision.HIGHEST) - right
    residual = float(jnp.linalg.norm(left_over) / jnp.linalg.norm(right))
    checks[f"Cholesky of {size} solves"] = residual <= RESIDUAL
    tflops = 1e-12 * size**3 / 3 / (taken := seconds(factorise, system))
    share = tflops / rates["fp32"]["tflops"]
    say(f"Cholesky of {size:,}: {tflops:.3f} TFLOP/s, {share:.0%} of the fp32 product, residual {residual:.0e}")
    return {"size": size, "seconds": taken, "tflops": tflops, "share_of_fp32_gemm": share, "residual": residual}


def users_rows(users: int, items: int) -> sp.csr_array:
    """Binary rows of log-normal activity; the first user has everything: a count beyond int8 and bfloat16."""
    rng = np.random.default_rng(0)
    sizes = np.clip(rng.lognormal(np.log(MEAN_INTERACTIONS) - 0.5, 1.0, users).astype(np.int64), 1, items // 2)
    drawn = rng.integers(items, size=sizes[1:].sum())
    row_of = np.concatenate([np.zeros(items, np.int64), np.repeat(np.arange(1, users), sizes[1:])])
    ones, columns = np.ones(len(row_of), np.float32), np.concatenate([np.arange(items), drawn])
    rows = sp.csr_array((ones, (row_of, columns)), shape=(users, items))
    rows.data[:] = 1  # what was drawn twice
    return rows


if __name__ == "__main__":
    sys.exit(main())
