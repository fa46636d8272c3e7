"""Distill-CF: a summary of a few synthetic users, learned so that an ∞-AE trained on it recommends well to all users.

`config` says what is learned, `training` is the outer loop on the driver, `users` its view of the real users that
actors hold, `checkpoint` what a killed run goes on from.
"""

from pipeline.distillation.config import DistillConfig, Objective
from pipeline.distillation.training import distill, plan_distillation

__all__ = ["DistillConfig", "Objective", "distill", "plan_distillation"]
