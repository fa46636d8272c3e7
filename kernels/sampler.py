"""The multi-Gumbel sampler of Distill-CF: a synthetic user is the union of T differentiable draws of an item.

Source: Sachdeva et al., NeurIPS 2022, §4 (arXiv 2206.02626). With logits L (m × I) and a temperature τ,

    S = min(1, Σ_{k=1..T} softmax((L + G_k)/τ)),    G_k standard Gumbel.

Here a group of synthetic users shares the noise G (T × I). The distribution of each user is exactly the same; only the
independence between the users of a group is lost. So the T softmaxes of the whole group become two matrix products:

    a = exp((L − max)/τ),   W = exp((G − max)/τ),   D = a Wᵀ,   S = min(1, a ∘ (D⁻¹ W)).

The maxima are those of each row, and cancel out. D⁻¹ is the inverse of each entry.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

LEAST_TEMPERATURE = 0.25
"""The least temperature: below it, D may underflow in float32.

A winning draw j has L_j + G_j ≥ L_max + G_{argmax L}, so the exponent that counts is at least (min G − max G)/τ. JAX's
float32 Gumbels span 20.4, and exp(−20.4/0.25) is still a normal number.
"""

_LEAST_EXPONENTIAL = np.float32(2.0**-24)
"""The least exponential draw that is used. Float32 exponentials that are not 0 lie between it and 25, so the Gumbels
from them span 19.9."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How a synthetic user is drawn.

    Raises ValueError for draws or groups below 1, and for a temperature that is infinite or below `LEAST_TEMPERATURE`.
    """

    draws: int = 200
    """T: the number of draws. A synthetic user has at most so many items, fractions added up."""
    temperature: float = 10.0
    """τ: a small τ draws single items, a large τ spreads a draw over many items."""
    groups: int = 4
    """The number of groups of synthetic users. The users of a group share their noise."""

    def __post_init__(self) -> None:
        if self.draws < 1 or self.groups < 1:
            raise ValueError(f"draws and groups must be at least 1, they are {self.draws} and {self.groups}")
        if not LEAST_TEMPERATURE <= self.temperature < float("inf"):
            raise ValueError(f"the temperature must be at least {LEAST_TEMPERATURE}, it is {self.temperature}")

    def for_items(self, items: int) -> Sampler:
        """Return the sampler for a catalogue of so many items, with at most half as many draws as there are items.

        The mean weight of an item is draws/items. Weights are cut off at 1, so with more draws they would all be 1.
        """
        return replace(self, draws=min(self.draws, max(items // 2, 1)))

    def group_rows(self, budget: int) -> list[slice]:
        """Return the rows of each group of synthetic users that share noise."""
        parts = np.array_split(np.arange(budget), min(self.groups, budget))
        return [slice(int(part[0]), int(part[-1]) + 1) for part in parts]

    def __call__(self, logits: Float[Array, "budget items"], key: Array) -> Float[Array, "budget items"]:
        """Return S, with entries in [0, 1] and row sums of at most `draws`, in the dtype of the logits.

        It is a pure function of (logits, key), and differentiable in the logits.
        """
        budget, items = logits.shape
        groups = min(self.groups, budget)
        noise = jax.random.gumbel(key, (groups, self.draws, items), logits.dtype)
        parts = jnp.array_split(logits, groups)
        drawn = jnp.concatenate(
            [union_of_draws(part, g, self.temperature) for part, g in zip(parts, noise, strict=True)]
        )
        return jnp.minimum(drawn, 1.0)


class Union(NamedTuple):
    """The union of some draws, not yet cut off at 1, and the arrays that the way back to the logits needs.

    The arrays are NumPy's or JAX's.
    """

    union: Float[Any, "group items"]
    """U = a ∘ (D⁻¹ W)."""
    a: Float[Any, "group items"]
    w: Float[Any, "draws items"]
    reciprocal: Float[Any, "group draws"]
    """D⁻¹, entry by entry."""

    @classmethod
    def of(cls, a: Float[Any, "group items"], w: Float[Any, "draws items"]) -> Union:
        """Compute the union from a and W."""
        reciprocal = 1.0 / (a @ w.T)
        return cls(a * (reciprocal @ w), a, w, reciprocal)

    def pull_back(self, cotangent: Float[Any, "group items"], temperature: float) -> Float[Any, "group items"]:
        """Return dL = (C ∘ U − a ∘ ((C ∘ a) Wᵀ ∘ D⁻¹ ∘ D⁻¹) W)/τ, where C is the cotangent.

        D⁻¹ is multiplied twice, because D⁻² might overflow.
        """
        through = ((cotangent * self.a) @ self.w.T) * self.reciprocal * self.reciprocal
        return (cotangent * self.union - self.a * (through @ self.w)) / temperature


def over_greatest(values: Float[Any, "rows items"], temperature: float) -> Float[Any, "rows items"]:
    """Return exp((x − max)/τ) with the maximum of each row: NumPy's for a NumPy array, else JAX's."""
    exp = np.exp if isinstance(values, np.ndarray) else jnp.exp
    return exp((values - values.max(axis=1, keepdims=True)) / temperature)


def fill_with_noise(w: Float32[np.ndarray, "draws items"], temperature: float, rng: np.random.Generator) -> None:
    """Fill `w` with W of fresh noise G = −log E. E is exponentially distributed, and must not be 0."""
    rng.standard_exponential(out=w, dtype=np.float32)
    np.maximum(w, _LEAST_EXPONENTIAL, out=w)
    np.log(w, out=w)
    w -= w.min(axis=1, keepdims=True)
    w *= -1.0 / temperature
    np.exp(w, out=w)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def union_of_draws(
    logits: Float[Array, "group items"], noise: Float[Array, "draws items"], temperature: float
) -> Float[Array, "group items"]:
    """Return Σ_k softmax((L + G_k)/τ), not yet cut off at 1, from L and G. It is differentiable in L."""
    union: Array = _union(logits, noise, temperature).union
    return union


def _union(logits: Array, noise: Array, temperature: float) -> Union:
    with jax.default_matmul_precision("highest"):
        return Union.of(over_greatest(logits, temperature), over_greatest(noise, temperature))


def _union_and_residuals(logits: Array, noise: Array, temperature: float) -> tuple[Array, Union]:
    drawn = _union(logits, noise, temperature)
    return drawn.union, drawn


def _pull_back(temperature: float, drawn: Union, cotangent: Array) -> tuple[Array, None]:
    with jax.default_matmul_precision("highest"):
        return drawn.pull_back(cotangent, temperature), None


union_of_draws.defvjp(_union_and_residuals, _pull_back)
