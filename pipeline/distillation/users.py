"""The real users that a summary is learned from and judged by, as the driver sees them: parts, which actors hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int

from infrec.kernels.metrics import combine
from infrec.kernels.ntk import NTK
from infrec.kernels.nystrom import NormalEquations
from infrec.kernels.outer_loss import Gradients, InnerModel
from infrec.pipeline.cluster import Report, Workers, silent
from infrec.pipeline.distillation.config import DistillConfig
from infrec.pipeline.distillation.denoising import Denoising
from infrec.pipeline.distillation.part_worker import Coefficients, summed_in_pairs
from infrec.pipeline.solvers import strips_of_items, sum_in_strips
from infrec.pipeline.storage import InputError


@dataclass(frozen=True)
class Users:
    """The driver's view of all parts. It adds up results in the order of the parts, whichever actor computed them."""

    workers: Workers
    parts: int

    def gradients(
        self,
        batches: Iterable[int],
        model: InnerModel,
        config: DistillConfig,
    ) -> Gradients:
        """Return the mean loss of the users of these batches, and its gradients.

        Raises `InputError` if the dataset has no training users.
        """
        model = model._replace(summary=np.asfortranarray(model.summary))
        shared = self.workers.share(model), self.workers.share(config)
        runs = runs_of_parts(self.parts, len(self.workers))
        calls = [(run, batch, *shared) for batch in batches for run in runs]
        shares = self.workers.map("gradients", calls)
        total = summed_in_pairs(shares, len(runs))
        for _ in range(len(calls) // len(runs) - 1):
            total += summed_in_pairs(shares, len(runs))
        if not total.users:
            raise InputError("The dataset has no training users.")
        loss, *derivatives = total.gradients
        means = (np.divide(x, total.users, out=x if x.flags.writeable else None) for x in derivatives)
        return Gradients(loss / total.users, *means)

    def normal_equations(
        self,
        ntk: NTK,
        summary: Float32[np.ndarray, "budget weighted"],
        denoising: Denoising,
        items: int | None = None,
        report: Report = silent,
    ) -> NormalEquations:
        """Return the normal equations of the regression of all users on the synthetic ones (`kernels.nystrom`).

        They are those of all `items`, strip by strip, with R in float32. None means of the weighted items.
        """
        budget, width = len(summary), summary.shape[1] if items is None else items
        strips = [slice(0, width)] if items is None else strips_of_items(budget, width)
        shared = self.workers.share(summary)
        calls = [
            (part, ntk, shared, denoising, None if items is None else strip)
            for strip in strips
            for part in range(self.parts)
        ]
        shares = self.workers.map("normal_equations", calls)
        return sum_in_strips(shares, self.parts, budget, strips, "Normal equations", report)

    def judge(
        self,
        ntk: NTK,
        summary: Float[np.ndarray, "budget weighted"],
        models: Sequence[Coefficients],
    ) -> list[dict[str, float]]:
        """Return the validation metrics for every model. Items without a score come last.

        Raises `InputError` if the dataset has no validation interactions.
        """
        shared = self.workers.share(summary), self.workers.share(list(models))
        judged = list(self.workers.map("judge", [(part, ntk, *shared) for part in range(self.parts)]))
        blocks = [[block for part in judged for block in part[index]] for index in range(len(models))]
        if not any(block.users for block in blocks[0]):
            raise InputError("The dataset has no validation interactions to choose a summary on.")
        return [combine(metrics) for metrics in blocks]

    def recommended(
        self,
        ntk: NTK,
        summary: Float[np.ndarray, "budget weighted"],
        model: Coefficients,
        k: int,
    ) -> Int[np.ndarray, "users k"]:
        """Return the first k items for every judged user, best first, by a model that scores all items."""
        shared = self.workers.share(summary), self.workers.share(model)
        parts = self.workers.map("recommended", [(part, ntk, *shared, k) for part in range(self.parts)])
        return np.concatenate([block for blocks in parts for block in blocks])


def runs_of_parts(parts: int, most: int) -> list[range]:
    """Return the parts in order, in runs of equal length: the longest power of two that leaves at least `most` runs.

    If there is none such, each part is a run.
    """
    length = 1
    while parts % (2 * length) == 0 and parts // (2 * length) >= most:
        length *= 2
    return [range(start, start + length) for start in range(0, parts, length)]
