"""Distill-CF learns a summary of a few synthetic users. An ∞-AE trained on the summary recommends well to all users.

`config` has the settings. `training` is the outer loop on the driver. `users` is the driver's view of the real users,
which actors hold. `labels` solves what the synthetic users predict, from users that lack some items (`denoising`).
`checkpoint` keeps what a killed run needs to continue. `initial` and `warm_start` make the first logits. `baselines`
are the methods that Distill-CF is compared with. `methods` makes a summary by Distill-CF or a baseline.
"""

from infrec.pipeline.distillation.baselines import BaselineConfig
from infrec.pipeline.distillation.config import DistillConfig, Labels, Method, Objective, Schedule
from infrec.pipeline.distillation.initial import check_budget
from infrec.pipeline.distillation.memory import plan_distillation
from infrec.pipeline.distillation.methods import plan_summarise, summarise
from infrec.pipeline.distillation.training import distill

__all__ = [
    "BaselineConfig",
    "DistillConfig",
    "Labels",
    "Method",
    "Objective",
    "Schedule",
    "check_budget",
    "distill",
    "plan_distillation",
    "plan_summarise",
    "summarise",
]
