"""Nyström: kernel ridge regression of any number of users on a few landmarks, by its normal equations.

The landmarks are Z (m × I). The blocks of users are X_b (together n × I), and K_b = K(X_b, Z). Then

    A = Σ_b K_bᵀ K_b,   R = Σ_b K_bᵀ X_b,   β = (A + c K_ZZ)⁻¹ R,   scores(x) = K(x, Z) β.

With all users as landmarks, β is (K + c·1)⁻¹ X: the α of the exact ∞-AE. The normal equations square the condition
number of the kernel, so they are added up and solved in float64.

Source: Williams & Seeger, NeurIPS 2001. Rasmussen & Williams 2006, §8.3.1, describe it as subset of regressors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from jaxtyping import Float, Float32, Float64

from infrec.kernels.kernel_matrix import KernelRows, LandmarkKernel
from infrec.kernels.sparse import add_transposed_product
from infrec.kernels.tiles import one_blas_thread

_ROUNDING = float(np.finfo(np.float32).eps)
"""The relative error of a kernel value: kernel values are computed in float32."""

_STRIP = 1024
"""The number of items handled at once where one landmarks × items matrix becomes another. This avoids a third one."""


@dataclass
class NormalEquations:
    """A and R of some users, and the two numbers that the ridge is made from.

    A share is the equations of some of the users. The shares of different users add up.
    """

    gram: Float64[np.ndarray, "landmarks landmarks"]
    """A."""
    targets: Float[np.ndarray, "landmarks items"]
    """R, in float64 while users are added, or in float32."""
    trace: float = 0.0
    """Σ_u K(x_u, x_u)."""
    users: int = 0
    """n, the number of these users."""

    @classmethod
    def empty(cls, landmarks: int, items: int) -> NormalEquations:
        """Return the equations of no users at all: zeros in float64."""
        return cls(np.zeros((landmarks, landmarks)), np.zeros((landmarks, items)))

    def __iadd__(self, other: NormalEquations) -> NormalEquations:
        """Add the share of other users."""
        self.gram += other.gram
        self.targets += other.targets
        self.trace += other.trace
        self.users += other.users
        return self

    def add(
        self,
        kernel: LandmarkKernel,
        inputs: Iterable[KernelRows],
        interactions: sp.csr_array,
        weights: Float32[np.ndarray, " users"] | None = None,
        *,
        targets_only: bool = False,
    ) -> None:
        """Add a block of users.

        Their kernel with the landmarks is held dense. K_bᵀK_b is computed in float64, and K_bᵀX_b in the kernel's own
        float32, because only A is squared.

        Args:
            kernel: K(·, Z).
            inputs: the rows of the users as the kernel sees them, once or more often. Each time counts as a user.
            interactions: X_b, the rows to be predicted, CSR users × items.
            weights: how much each user counts in A and R. None means that each counts once.
            targets_only: add to R alone. Where R is made in strips of items, one of them adds the users to the rest.
        """
        # The root goes to both factors, so that A stays symmetric to the last bit
        roots = None if weights is None else np.sqrt(weights)[:, None]
        summed = np.zeros((interactions.shape[0], kernel.landmarks), np.float32)
        for users in inputs:
            block = kernel(users)
            if roots is not None:
                block = block * roots
            summed += block
            if not targets_only:
                self._add_to_gram(block.astype(np.float64))
                diagonal = np.asarray(kernel.ntk.diagonal(users.squares, items=users.rows.shape[1]), np.float64)
                self.trace += float(diagonal.sum())
                self.users += len(users.squares)
        if roots is not None:
            interactions = sp.csr_array(interactions.multiply(roots))
        add_transposed_product(interactions.T.tocsr(), summed, self.targets)

    def _add_to_gram(self, block: Float64[np.ndarray, "users landmarks"]) -> None:
        with one_blas_thread:
            self.gram += block.T @ block

    def ridge(self, lam: float) -> float:
        """Return the ridge c = λ tr(K)/n, the same as in the exact ∞-AE of these users."""
        return lam * self.trace / max(self.users, 1)


@dataclass(frozen=True)
class NystromSystem:
    """The normal equations in a basis P in which both matrices are diagonal: Pᵀ K_ZZ P = 1 and Pᵀ A P = diag(a).

    One decomposition serves every ridge: β = P (diag(a) + c·1)⁻¹ Pᵀ R. Another matrix may take the place of K_ZZ. Then
    it is what the ridge measures β by: βᵀ (A + c M) β.
    """

    basis: Float64[np.ndarray, "landmarks rank"]
    """P."""
    spectrum: Float64[np.ndarray, " rank"]
    """a."""
    targets: Float[np.ndarray, "rank items"]
    """PᵀR, in the dtype of R."""

    @classmethod
    def of(cls, kernel: Float64[np.ndarray, "landmarks landmarks"], equations: NormalEquations) -> NystromSystem:
        """Return the system of K_ZZ = `kernel` and the users' normal equations. It takes over the memory of their R.

        Directions in which K_ZZ is no larger than its own rounding error are left out: landmarks with the same history
        have such a direction. In all others A ≥ K_ZZ² where the landmarks are among the users, so that a > 0 without
        any ridge.
        """
        # Independent errors of size ε in m² entries have a norm of 2 √m ε. The bound is twice that, to be sure
        targets = equations.targets
        with one_blas_thread:
            values, vectors = scipy.linalg.eigh(kernel, driver="evd")
            kept = values > 4 * math.sqrt(len(kernel)) * _ROUNDING * kernel.max()
            white = vectors[:, kept] / np.sqrt(values[kept])
            spectrum, rotation = scipy.linalg.eigh(white.T @ equations.gram @ white, driver="evd")
            spectrum = np.maximum(spectrum, 0.0)  # a negative value is rounding
            basis = white @ rotation
            for strip in _strips(targets.shape[1]):
                targets[: len(spectrum), strip] = basis.T @ targets[:, strip]
        return cls(basis, spectrum, targets[: len(spectrum)])

    @cached_property
    def targets_gram(self) -> Float64[np.ndarray, "rank rank"]:
        """PᵀR(PᵀR)ᵀ."""
        gram = np.zeros((len(self.targets), len(self.targets)))
        with one_blas_thread:
            for strip in _strips(self.targets.shape[1]):
                targets = self.targets[:, strip].astype(np.float64)
                gram += targets @ targets.T
        return gram

    @property
    def mean(self) -> float:
        """Return tr(K_ZZ⁻¹ A)/m, the unit of a ridge that does not depend on the scales of A and of K_ZZ."""
        return float(self.spectrum.sum()) / len(self.basis)

    def shrunk(self, ridge: float) -> Float64[np.ndarray, "landmarks rank"]:
        """Return P (diag(a) + c·1)⁻¹ for c = `ridge`: with it, scores(x) = (K(x, Z) `shrunk`) PᵀR without any β.

        It is not finite where there is no solution, which only a ridge of 0 can cause.
        """
        with np.errstate(divide="ignore"):
            shrunk: np.ndarray = self.basis / (self.spectrum + ridge)
        return shrunk

    def dual(self, ridge: float, items: slice = slice(None)) -> Float32[np.ndarray, "landmarks items"]:
        """Return β of some items for c = `ridge`. Like `shrunk` it may not be finite."""
        shrunk, targets = self.shrunk(ridge), self.targets[:, items]
        dual = np.empty((len(self.basis), targets.shape[1]), np.float32)
        with one_blas_thread:
            for strip in _strips(dual.shape[1]):
                dual[:, strip] = shrunk @ targets[:, strip]
        return dual

    def labels(self, kernel: Float64[np.ndarray, "landmarks landmarks"], ridge: float, rank: int) -> LabelFactors:
        """Return the labels K_ZZ β from which kernel regression on the landmarks finds β, for c = `ridge` > 0.

        They are the best labels of this rank. In the basis, the regression minimises ‖(a + c)^½ (γ − γ*)‖² over the
        coefficients γ, with the minimum γ* = (a + c)⁻¹ PᵀR. With a bound on the rank of γ it is least where only the
        first singular vectors of (a + c)^−½ PᵀR are left (reduced-rank regression: Izenman, 1975).

        Args:
            kernel: K_ZZ.
            ridge: c.
            rank: the greatest rank. With that of the basis or more, the labels are K_ZZ β.
        """
        root = 1.0 / np.sqrt(self.spectrum + ridge)
        gram, items = self.targets_gram, self.targets.shape[1]
        with one_blas_thread:
            vectors = scipy.linalg.eigh(root[:, None] * gram * root, driver="evd")[1][:, ::-1][:, :rank]
            scaled = root[:, None] * vectors
            right = np.empty((scaled.shape[1], items), np.float32)
            for strip in _strips(items):
                right[:, strip] = scaled.T @ self.targets[:, strip]
            left = kernel @ (self.basis @ scaled)
        return LabelFactors(left.astype(np.float32), right)


class LabelFactors(NamedTuple):
    """Labels as a product: label (z, i) is Σ_j left[z, j] right[j, i]. The rows of `right` are orthogonal."""

    left: Float32[np.ndarray, "landmarks rank"]
    right: Float32[np.ndarray, "rank items"]


def _strips(items: int) -> list[slice]:
    return [slice(start, start + _STRIP) for start in range(0, items, _STRIP)]
