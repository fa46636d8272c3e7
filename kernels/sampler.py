"""The multi-Gumbel sampler of Distill-CF: a synthetic user is the union of T differentiable draws of an item.

Source: Sachdeva et al., NeurIPS 2022, §4 (arXiv 2206.02626): with logits L (m × I) and a temperature τ,

    S = min(1, Σ_{k=1..T} softmax((L + G_k)/τ)),    G_k standard Gumbel.

Here the noise G (T × I) is shared by a group of synthetic users. Each user's distribution is exactly the same, only the
independence between users of a group goes; and the T softmaxes of the whole group become two matrix products,

    a = exp((L − max)/τ),   W = exp((G − max)/τ),   D = a Wᵀ,   S = min(1, a ∘ (D⁻¹ W)),

where the maxima are those of each row and cancel out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_PRECISION = jax.lax.Precision.HIGHEST

LEAST_TEMPERATURE = 0.25
"""Below it D may underflow in float32. Of a winning draw L_j + G_j ≥ L_max + G_{argmax L}, so the exponent that counts
is at least (min G − max G)/τ; JAX's float32 Gumbels span 20.4, and exp(−20.4/0.25) is still a normal number."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How a synthetic user is drawn. Raises ValueError for values out of range."""

    draws: int = 200
    """T: how many items a synthetic user has, fractions added up."""
    temperature: float = 10.0
    """τ: small draws single items, large spreads a draw over many."""
    groups: int = 4
    """Groups of synthetic users that share noise."""

    def __post_init__(self) -> None:
        if self.draws < 1 or self.groups < 1:
            raise ValueError(f"draws and groups must be at least 1, they are {self.draws} and {self.groups}")
        if not LEAST_TEMPERATURE <= self.temperature < float("inf"):
            raise ValueError(f"the temperature must be at least {LEAST_TEMPERATURE}, it is {self.temperature}")

    def __call__(self, logits: Float[Array, "budget items"], key: Array) -> Float[Array, "budget items"]:
        """S, entries in [0, 1], rows of sum at most `draws`; a pure function of (logits, key), differentiable."""
        budget, items = logits.shape
        groups = min(self.groups, budget)
        noise = jax.random.gumbel(key, (groups, self.draws, items), logits.dtype)
        parts = jnp.array_split(logits, groups)
        drawn = jnp.concatenate(
            [union_of_draws(part, g, self.temperature) for part, g in zip(parts, noise, strict=True)]
        )
        return jnp.minimum(drawn, 1.0)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def union_of_draws(
    logits: Float[Array, "group items"], noise: Float[Array, "draws items"], temperature: float
) -> Float[Array, "group items"]:
    """Σ_k softmax((L + G_k)/τ), not yet cut off at 1; differentiable in L."""
    return _union_and_residuals(logits, noise, temperature)[0]


_Residuals = tuple[Float[Array, "group items"], Float[Array, "draws items"], Float[Array, "group draws"]]


def _union_and_residuals(logits: Array, noise: Array, temperature: float) -> tuple[Array, _Residuals]:
    a = _over_greatest(logits, temperature)
    w = _over_greatest(noise, temperature)
    reciprocal = 1.0 / jnp.matmul(a, w.T, precision=_PRECISION)
    return a * jnp.matmul(reciprocal, w, precision=_PRECISION), (logits, w, reciprocal)


def _pull_back(temperature: float, residuals: _Residuals, cotangent: Array) -> tuple[Array, None]:
    """With U = D⁻¹ W and C the cotangent: dL = a ∘ (C ∘ U − ((C ∘ a) Wᵀ ∘ D⁻¹ ∘ D⁻¹) W)/τ; D⁻² might overflow."""
    logits, w, reciprocal = residuals
    a = _over_greatest(logits, temperature)
    through = jnp.matmul(cotangent * a, w.T, precision=_PRECISION) * reciprocal * reciprocal
    inner = cotangent * jnp.matmul(reciprocal, w, precision=_PRECISION)
    return a * (inner - jnp.matmul(through, w, precision=_PRECISION)) / temperature, None


def _over_greatest(values: Array, temperature: float) -> Array:
    """exp((x − max)/τ) in each row."""
    return jnp.exp((values - values.max(axis=1, keepdims=True)) / temperature)


union_of_draws.defvjp(_union_and_residuals, _pull_back)
