"""The BPR proxy model that SVP-CF uses, and the importance that it gives to each user.

SVP-CF (selection via proxy), in its user-wise form, chooses the users that a small model, the proxy, finds hard to
learn. Source: Sachdeva, Wu, McAuley, "On Sampling Collaborative Filtering Datasets", WSDM 2022.

The proxy is a matrix factorisation with one bias per item. It is trained on triples of a user u, one of the user's
items i and a random item j (BPR: Rendle et al. 2009):

    score(u, i) = ⟨p_u, q_i⟩ + b_i,     loss = Σ_(u,i,j) log(1 + exp(score(u, j) − score(u, i))).

The importance of a user is the mean of 1 − AUC over the proxy's epochs. The AUC compares the user's held-out items with
sampled items that the user never touched.

A tenth of each user's training interactions is held out from the proxy, whatever the split of the dataset. The training
users of a dataset of strong generalisation have no other interactions. In other datasets the validation part serves
the choice of λ alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.sparse as sp
from jaxtyping import Array, Float, Int

from infrec.kernels.metrics import sample_negatives
from infrec.kernels.sparse import chosen_entries

_BLOCK = 512
"""The number of users whose scores are held at once. The sampled negatives depend on it."""
_DIMENSIONS = 16
_EPOCHS = 20
_UPDATES = 64
"""The number of batches in an epoch. Their size grows with the data, so that Adam's dense updates stay a fixed share of
the work."""
_INITIAL_SCALE = 0.1
_OPTIMISER = optax.adam(0.02)


class _Proxy(NamedTuple):
    """The parameters of the proxy: p, q and b."""

    users: Float[Array, "users dimensions"]
    items: Float[Array, "items dimensions"]
    bias: Float[Array, " items"]


def importance(train: sp.csr_array, *, seed: int, on_epoch: Callable[[int, int], None]) -> Float[np.ndarray, " users"]:
    """Return the importance of every user: the mean of 1 − AUC over the proxy's epochs.

    The result is float64 in 0 … 1. It is −∞ for users with fewer than two interactions.

    Args:
        train: CSR users × items, the training interactions.
        seed: determines the held-out interactions, the proxy and the sampled negatives.
        on_epoch: called after each epoch with the number of epochs done and the number of all epochs.
    """
    rng = np.random.default_rng(seed)
    goes = _tenth_of_each(train, rng)
    fit, held_out = chosen_entries(train, ~goes), chosen_entries(train, goes)
    judged = np.diff(held_out.indptr) > 0
    if not judged.any():
        return np.full(train.shape[0], -np.inf)
    examiner = _Examiner.of(train, held_out, seed=seed)
    total = np.zeros(train.shape[0])
    for epoch, proxy in enumerate(_epochs(fit, rng, seed=seed)):
        total += 1 - examiner.aucs(proxy)
        on_epoch(epoch + 1, _EPOCHS)
    return np.where(judged, total / _EPOCHS, -np.inf)


def _tenth_of_each(train: sp.csr_array, rng: np.random.Generator) -> np.ndarray:
    """Return for every entry whether it is held out.

    A user with n ≥ 2 interactions has max(1, ⌊n/10⌋) of them held out, at random. A user with one has none held out.
    """
    counts = np.diff(train.indptr)
    user_of = np.repeat(np.arange(len(counts)), counts)
    place = np.empty(train.nnz, np.int64)
    place[np.lexsort((rng.random(train.nnz), user_of))] = np.arange(train.nnz) - train.indptr[user_of]
    held_out = np.where(counts > 1, np.maximum(counts // 10, 1), 0)
    chosen: np.ndarray = place < held_out[user_of]
    return chosen


def _epochs(fit: sp.csr_array, rng: np.random.Generator, *, seed: int) -> Iterator[_Proxy]:
    """Train the proxy on `fit`, and yield it after each epoch."""
    users, items = fit.shape
    user_of = np.repeat(np.arange(users, dtype=np.int32), np.diff(fit.indptr))
    keys = jax.random.split(jax.random.key(seed))
    proxy = _Proxy(
        _INITIAL_SCALE * jax.random.normal(keys[0], (users, _DIMENSIONS)),
        _INITIAL_SCALE * jax.random.normal(keys[1], (items, _DIMENSIONS)),
        jnp.zeros(items),
    )
    state = _OPTIMISER.init(proxy)
    shape = _UPDATES, -(-fit.nnz // _UPDATES)
    for _ in range(_EPOCHS):
        entries = np.resize(rng.permutation(fit.nnz), shape)  # this repeats the first ones to fill the last batch
        # The random item may be one that the user knows. This does no harm: the proxy only has to be about right
        pairs = user_of[entries], fit.indices[entries], rng.integers(items, size=shape, dtype=np.int32)
        proxy, state = _epoch(proxy, state, *map(jnp.asarray, pairs))
        yield proxy


@jax.jit
def _epoch(
    proxy: _Proxy, state: optax.OptState, users: Array, positives: Array, negatives: Array
) -> tuple[_Proxy, optax.OptState]:
    """Make one pass over batches of (user, item, random item). The arrays are batches × entries of a batch."""

    def loss(proxy: _Proxy, user: Array, positive: Array, negative: Array) -> Array:
        difference = jnp.sum(proxy.users[user] * (proxy.items[positive] - proxy.items[negative]), axis=1)
        return jnp.sum(jax.nn.softplus(proxy.bias[negative] - proxy.bias[positive] - difference))

    def update(carry: tuple[_Proxy, optax.OptState], batch: tuple[Array, Array, Array]) -> tuple[tuple, None]:
        proxy, state = carry
        updates, state = _OPTIMISER.update(jax.grad(loss)(proxy, *batch), state, proxy)
        return (optax.apply_updates(proxy, updates), state), None

    (proxy, state), _ = jax.lax.scan(update, (proxy, state), (users, positives, negatives))
    return proxy, state


@dataclass(frozen=True)
class _Examiner:
    """The users' held-out items, and sampled items that they never touched. Both are drawn once for all epochs."""

    held_out: sp.csr_array
    negatives: Int[np.ndarray, "users negatives"]
    """The sampled items; −1 where a user has no more of them."""

    @classmethod
    def of(cls, train: sp.csr_array, held_out: sp.csr_array, *, seed: int) -> _Examiner:
        """Sample the negatives, block of users by block of users."""
        blocks = [
            sample_negatives(train[start : start + _BLOCK], seed=seed, block=start).astype(np.int32)
            for start in range(0, train.shape[0], _BLOCK)
        ]
        return cls(held_out, np.concatenate(blocks))

    def aucs(self, proxy: _Proxy) -> Float[np.ndarray, " users"]:
        """Return P(held-out > sampled) + ½ P(equal) of every user. It is ½ where there is nothing to compare."""
        users, items, bias = (np.asarray(factor) for factor in proxy)
        aucs = np.full(len(users), 0.5)
        for start in range(0, len(users), _BLOCK):
            rows = slice(start, start + _BLOCK)
            held_out, negatives = self.held_out[rows], self.negatives[rows]
            counts = np.diff(held_out.indptr)
            user_of = np.repeat(np.arange(len(counts)), counts)
            mine, theirs = users[rows], held_out.indices
            positive = np.einsum("hd,hd->h", mine[user_of], items[theirs]) + bias[theirs]
            sampled = np.einsum("ud,und->un", mine, items[negatives]) + bias[negatives]
            positive, sampled = positive[:, None], sampled[user_of]
            there = negatives[user_of] >= 0
            wins = np.where(there, (positive > sampled) + 0.5 * (positive == sampled), 0).sum(axis=1)
            comparisons = np.bincount(user_of, there.sum(axis=1), minlength=len(counts))
            won = np.bincount(user_of, wins, minlength=len(counts))
            np.divide(won, comparisons, out=aucs[rows], where=comparisons > 0)
        return aucs
