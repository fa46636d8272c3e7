"""Users that lack some of their items, from which whole users are predicted.

A model that sees an item in its input need not learn what goes with it. With items dropped from the input it must
(Steck, "Autoencoders that don't overfit towards the identity", NeurIPS 2020).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32

from infrec.kernels.sparse import chosen_entries


@dataclass(frozen=True, kw_only=True)
class Denoising:
    """How users are presented to a regression that predicts them."""

    drop: float
    """The probability with which each interaction is left out of the input."""
    draws: int
    """The number of times that each user is a row of the regression, each time without other items."""
    user_weight: float
    """The exponent ω: a user with |x| interactions has the weight (mean size / |x|)^ω."""
    mean_size: float
    """The mean number of interactions of a training user."""
    seed: int

    def inputs(self, users: sp.csr_array, *key: int) -> Iterator[sp.csr_array]:
        """Return the inputs of some users (CSR, users × items), once for each draw. They depend on seed and `key`."""
        for draw in range(self.draws):
            random = np.random.default_rng([self.seed, draw, *key])
            yield chosen_entries(users, random.random(users.nnz) >= self.drop)

    def weights(self, users: sp.csr_array) -> Float32[np.ndarray, " users"]:
        """Return the weight of each user. A user without interactions counts as one with a single interaction."""
        sizes = np.maximum(np.diff(users.indptr), 1)
        weights: np.ndarray = ((self.mean_size / sizes) ** self.user_weight).astype(np.float32)
        return weights
