"""Learners other than ∞-AE. They train on a summary's synthetic users or on all users, and real users judge them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self
from uuid import uuid4

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from infrec.kernels.gumbel_top_k import interactions
from infrec.pipeline.cluster import Plan, Report, silent
from infrec.pipeline.data import Dataset
from infrec.pipeline.models import (
    EASEConfig,
    MFConfig,
    fit_ease,
    fit_mf,
    item_factors,
    open_model,
    plan_factorisation,
    plan_item_system,
    summary_matrix,
)
from infrec.pipeline.models import solve_ease as ease_solved
from infrec.pipeline.storage import Artefact, ArtefactWriter, InputError, Kind, Location

_SPREADS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""λ of EASE, in units of an item's spread over the rows: the sum of squared distances from its mean.

The weights of a summary lie close together, around a mean that the sampler's temperature gives. So their sum of squares
says nothing about the right λ. In units of the spread, the right λ was 8 and 32 for summaries of two real logs, and 16
for as many real users.
"""
_LISTED = 8
"""MF gets one eighth of the catalogue for each synthetic user: the items of the greatest weights."""


class Learner(StrEnum):
    """A learner that is trained on a summary."""

    INFINITE_AE = "infinite-ae"
    """The learner that the summary was made for. A summary is this model already, without more training."""
    EASE = "ease"
    MF = "mf"


@dataclass(frozen=True)
class Lesson:
    """A learner with its training rows and its config."""

    dataset: Dataset
    """The dataset whose users judge the learner."""
    rows: sp.csr_array
    """The rows that the learner is trained on (CSR, rows × items)."""
    config: EASEConfig | MFConfig
    place: Location
    """A place that every node can read. The learner's model lies beside it for a while."""

    @classmethod
    def of(cls, uri: str, dataset: Dataset, learner: Learner, *, seed: int, select: str = EASEConfig.select) -> Self:
        """Return the lesson that trains `learner` on the summary at `uri`.

        EASE takes the weights as they are. Weights that were centred, cut down to the greatest, or raised to a power
        did no better on validation. MF takes the items of the greatest weights, all alike: to `implicit` every item
        with a weight is liked, and the weight says how surely, so a synthetic user would like everything. As few items
        as a real user has did worse than an eighth of the catalogue.

        Raises `InputError` if there is no summary of the dataset's items at `uri`.
        """
        summary = open_model(uri, dataset)
        if summary.manifest.kind != Kind.SUMMARY:
            raise InputError(
                f"{uri} is a {summary.manifest.kind}: the learner {learner} is trained on summaries.", "learner"
            )
        weights = summary_matrix(summary)
        if learner == Learner.EASE:
            ease = EASEConfig(lambdas=ease_lambdas(weights), select=select, seed=seed)
            return cls(dataset, sp.csr_array(weights), ease, summary.location)
        listed = -(-weights.shape[1] // _LISTED)
        mf = MFConfig(select=select, seed=seed)
        return cls(dataset, interactions(weights, per_user=listed), mf, summary.location)

    @classmethod
    def of_all_users(cls, dataset: Dataset, learner: Learner, place: Location, *, seed: int, select: str) -> Self:
        """Return the lesson that trains `learner` on all training users of the dataset."""
        kind = EASEConfig if learner == Learner.EASE else MFConfig
        return cls(dataset, dataset.training_matrix(), kind(select=select, seed=seed), place)

    @property
    def plan(self) -> Plan:
        """The memory that `fitted` will take."""
        (users, items), judged = self.rows.shape, self.dataset.num_users
        if isinstance(self.config, EASEConfig):
            return plan_item_system(items=items, interactions=self.rows.nnz, weights=2, judged=judged)
        factors = max(self.config.factors)
        return plan_factorisation(users=users, items=items, interactions=self.rows.nnz, factors=factors, judged=judged)

    @contextmanager
    def fitted(self, report: Report = silent) -> Iterator[Artefact]:
        """Train the learner, and yield its model, which exists for as long as the block runs.

        The hyper-parameters of the model are the best of the grid on validation.
        """
        writer = ArtefactWriter(self.place.parent / f".{self.place.name}.{uuid4().hex}", Kind.MODEL, purpose={})
        try:
            with writer:
                if isinstance(self.config, EASEConfig):
                    yield fit_ease(self.dataset, writer, self.config, train=self.rows, report=report)
                else:
                    yield fit_mf(self.dataset, writer, self.config, train=self.rows, report=report)
        finally:
            writer.staging.remove()
            writer.target.remove()

    def train(self, model: Artefact) -> None:
        """Train once more, with the hyper-parameters of `model`. It does not search, validate or write anything."""
        chosen = model.manifest.config
        if isinstance(self.config, EASEConfig):
            next(ease_solved(self.rows, replace(self.config, lambdas=(chosen["lambda"],))))
        else:
            item_factors(self.rows, chosen["factors"], chosen["alpha"], chosen["lambda"], self.config)


def ease_lambdas(weights: Float[np.ndarray, "rows items"]) -> tuple[float, ...]:
    """Return the grid of λ for these rows: multiples of the items' mean spread (see `_SPREADS`)."""
    rows = weights.astype(np.float64)
    spread = rows.var(axis=0).mean() or np.square(rows).mean()  # a single row has no spread
    spread *= len(rows)
    return tuple(unit * float(spread) for unit in _SPREADS)
