"""One way to make a summary by any method: Distill-CF, or a baseline that it is compared with."""

from __future__ import annotations

from infrec.pipeline.cluster import OnValidation, Plan, Pool, Report, ignored, silent
from infrec.pipeline.data import Dataset
from infrec.pipeline.distillation.baselines import BaselineConfig, make_baseline, plan_baseline
from infrec.pipeline.distillation.config import DistillConfig
from infrec.pipeline.distillation.initial import check_budget
from infrec.pipeline.distillation.memory import plan_distillation
from infrec.pipeline.distillation.training import distill
from infrec.pipeline.storage import Artefact, ArtefactWriter


def summarise(
    dataset: Dataset,
    writer: ArtefactWriter,
    config: DistillConfig | BaselineConfig,
    pool: Pool,
    *,
    warm_start: Artefact | None = None,
    report: Report = silent,
    on_validation: OnValidation = ignored,
) -> Artefact:
    """Make and publish a summary by the method of `config`. `warm_start` and `on_validation` are for Distill-CF only.

    Raises `InputError` if the budget is above the number of training users, if no λ has a finite solution, or if
    the warm start does not fit. Raises `Diverged` if numbers of Distill-CF stop being finite.
    """
    if isinstance(config, DistillConfig):
        return distill(dataset, writer, config, pool, warm_start=warm_start, report=report, on_validation=on_validation)
    return make_baseline(dataset, writer, config, pool, report=report)


def plan_summarise(dataset: Dataset, config: DistillConfig | BaselineConfig, *, workers: int | None = None) -> Plan:
    """Return the memory that `summarise` will take with so many workers. None means those of the connected cluster.

    Raises `InputError` if the budget is too large.
    """
    check_budget(config.budget, dataset)
    if isinstance(config, DistillConfig):
        return plan_distillation(dataset, config, workers=workers)
    return plan_baseline(dataset, config, workers=workers)
