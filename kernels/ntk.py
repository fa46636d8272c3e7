"""The neural tangent kernel of an infinitely wide fully-connected ReLU network, from inner products alone.

Source: Sachdeva et al., NeurIPS 2022, arXiv 2206.02626 (W_std² = 2, b_std² = 0.01, depth 1). The recursion is that of
Jacot et al. 2018, with the arc-cosine kernels of Cho & Saul 2009.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

AnyFloats = TypeVar("AnyFloats", Float[Array, " rows"], Float[np.ndarray, " rows"])


@dataclass(frozen=True, kw_only=True)
class NTK:
    """The NTK of `depth` hidden ReLU layers under the parametrisation W/√fan-in.

    Let W = w_std, w = W²/I for rows of I items, B = b_std², and let q be the pre-activation covariances of a pair
    (x, y). The recursion goes layer by layer:

        q = w⟨x,y⟩ + B,   θ = q
        then `depth` times, with p = √(q_xx q_yy), cos t = q/p:
            κ = p (sin t + (π−t) cos t) / 2π          covariance behind the ReLU
            θ ← W² θ (π−t)/2π + (W² κ + B)            NTK
            q ← W² κ + B,   q_xx ← W² q_xx/2 + B

    At the end K(x, y) = θ. The angle is computed without the cancellation in 1 − cos² t. Let a = |x|²−⟨x,y⟩ and
    b = |y|²−⟨x,y⟩. At the first layer, r = p sin t satisfies r² = w²(⟨x,y⟩(a+b) + ab) + wB(a+b), and for binary rows
    ⟨x,y⟩, a and b are exact integers. At deeper layers r is carried on in the same way (see `_next_sine`).

    Raises ValueError for a depth below 1, a w_std that is not positive or a negative b_std.
    """

    depth: int = 1
    w_std: float = math.sqrt(2.0)
    b_std: float = 0.1

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"depth must be at least 1, it is {self.depth}")
        if not self.w_std > 0 or not self.b_std >= 0:
            raise ValueError(f"w_std must be > 0 and b_std >= 0, they are {self.w_std} and {self.b_std}")

    def __call__(
        self,
        inner: Float[Array, "rows columns"],
        row_squares: Float[Array, " rows"],
        column_squares: Float[Array, " columns"],
        *,
        items: int,
    ) -> Float[Array, "rows columns"]:
        """Return K(x, y) for every pair, from the inner products ⟨x,y⟩, |x|² and |y|² of rows with `items` entries.

        The result has their dtype. Gradients are finite everywhere, also for identical and for all-zero rows. There the
        kernel has a kink, and the gradient through the angle is taken as 0.
        """
        w2, bias = self.w_std**2, self.b_std**2
        w = w2 / items
        a = row_squares[:, None] - inner
        b = column_squares[None, :] - inner
        q = w * inner + bias
        r = _safe_sqrt(w * w * (inner * (a + b) + a * b) + w * bias * (a + b))
        # Deeper layers need only √q_xx − √q_yy and √q_xx √q_yy of the two variances
        row_variance, column_variance = w * row_squares + bias, w * column_squares + bias
        theta = q
        for layer in range(self.depth):
            t = _angle(r, q)
            kappa = (r + (jnp.pi - t) * q) / (2 * jnp.pi)  # p sin t = r and p cos t = q
            theta = w2 * theta * ((jnp.pi - t) / (2 * jnp.pi)) + (w2 * kappa + bias)
            if layer + 1 < self.depth:
                r = _next_sine(t, row_variance, column_variance, w2, bias)
                q = w2 * kappa + bias
                row_variance = w2 * row_variance / 2 + bias
                column_variance = w2 * column_variance / 2 + bias
        return theta

    def diagonal(self, squares: AnyFloats, *, items: int) -> AnyFloats:
        """Return K(x, x) from |x|². The angle is exactly 0 here, whatever the rounding of an inner product says."""
        w2, bias = self.w_std**2, self.b_std**2
        q = (w2 / items) * squares + bias
        theta = q
        for _ in range(self.depth):
            q = w2 * q / 2 + bias
            theta = w2 * theta / 2 + q
        return theta


def _next_sine(
    t: Float[Array, "rows columns"],
    row_variance: Float[Array, " rows"],
    column_variance: Float[Array, " columns"],
    w2: float,
    bias: float,
) -> Float[Array, "rows columns"]:
    """Return p' sin t' behind a ReLU and a dense layer. No step takes a difference of nearly equal numbers.

    With A = W²/2, p = √(q_xx q_yy) and κ = p h/2:  p'² sin² t' = A²p²(1−h²) + AB((√q_xx − √q_yy)² + 2p(1−h)),
    where 1 − h = 2 sin²(t/2) − (sin t − t cos t)/π.
    """
    row_root, column_root = _safe_sqrt(row_variance)[:, None], _safe_sqrt(column_variance)[None, :]
    p = row_root * column_root
    gap = 2 * jnp.sin(t / 2) ** 2 - (jnp.sin(t) - t * jnp.cos(t)) / jnp.pi
    half = w2 / 2
    return _safe_sqrt((half * p) ** 2 * gap * (2 - gap) + half * bias * ((row_root - column_root) ** 2 + 2 * p * gap))


@jax.custom_jvp
def _angle(r: Array, q: Array) -> Array:
    """Return arctan2(r, q) for r ≥ 0, and 0 where both are 0 (an all-zero row in a network without bias).

    In float32 it is the polynomial of Cephes' atanf (Moshier 1989; relative error below 3·10⁻⁷), which XLA vectorises.
    On a CPU, XLA calls the library's arctan2 element by element, five times slower than all the rest of the kernel.
    """
    if r.dtype != jnp.float32:
        return jnp.arctan2(r, jnp.where((r == 0) & (q == 0), 1.0, q))
    steep = r > jnp.abs(q)
    least, most = jnp.where(steep, jnp.abs(q), r), jnp.where(steep, r, jnp.abs(q))
    ratio = least / jnp.where(most > 0, most, 1.0)
    upper = ratio > math.tan(math.pi / 8)  # reduce [0, 1] to ± tan(π/8) about 0 or about 1
    x = jnp.where(upper, (ratio - 1.0) / (ratio + 1.0), ratio)
    z = x * x
    tail = ((8.05374449538e-2 * z - 1.38776856032e-1) * z + 1.99777106478e-1) * z - 3.33329491539e-1
    t = jnp.where(upper, jnp.pi / 4, 0.0) + (tail * z * x + x)
    t = jnp.where(steep, jnp.pi / 2 - t, t)
    return jnp.where(q < 0, jnp.pi - t, t)


@_angle.defjvp
def _angle_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return the angle t and dt = (q dr − r dq) / (r² + q²). dt is 0 where both r and q are 0."""
    (r, q), (dr, dq) = primals, tangents
    square = r * r + q * q
    return _angle(r, q), jnp.where(square > 0, q * dr - r * dq, 0.0) / jnp.where(square > 0, square, 1.0)


def _safe_sqrt(x: Array) -> Array:
    """Return √x. Where x ≤ 0, it and its gradient are 0: rounding can make an exact 0 slightly negative."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


ntk_block = jax.jit(NTK.__call__, static_argnames=("self", "items"))
"""`NTK.__call__`, compiled once for each block shape: `ntk_block(ntk, inner, row_squares, column_squares, items=I)`."""
