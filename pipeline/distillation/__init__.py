"""Distill-CF: a summary of a few synthetic users, learned so that an ∞-AE trained on it recommends well to all
users.

`config` says what is learned, `training` is the outer loop on the driver, `users` its view of the real users that
actors hold, `checkpoint` what a killed run goes on from, `initial` and `warm_start` what it begins with. `baselines`
are what it is compared with; `summarise` makes a summary by whichever method.
"""

from infrec.pipeline.distillation.baselines import BaselineConfig
from infrec.pipeline.distillation.config import DistillConfig, Method, Objective, Schedule
from infrec.pipeline.distillation.initial import check_budget
from infrec.pipeline.distillation.memory import plan_distillation
from infrec.pipeline.distillation.summarise import plan_summarise, summarise
from infrec.pipeline.distillation.training import distill

__all__ = [
    "BaselineConfig",
    "DistillConfig",
    "Method",
    "Objective",
    "Schedule",
    "check_budget",
    "distill",
    "plan_distillation",
    "plan_summarise",
    "summarise",
]
