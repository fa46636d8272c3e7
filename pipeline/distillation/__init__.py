"""Distill-CF: a summary of a few synthetic users, learned so that an ∞-AE trained on it recommends well to all users.

`config` says what is learned, `training` is the outer loop on the driver, `users` its view of the real users that
actors hold, `checkpoint` what a killed run goes on from. `comparison` makes summaries by other methods as well.
"""

from pipeline.distillation.comparison import ComparisonConfig, Method, plan_summarise, summarise
from pipeline.distillation.config import DistillConfig, Objective
from pipeline.distillation.training import distill, plan_distillation

__all__ = [
    "ComparisonConfig",
    "DistillConfig",
    "Method",
    "Objective",
    "distill",
    "plan_distillation",
    "plan_summarise",
    "summarise",
]
