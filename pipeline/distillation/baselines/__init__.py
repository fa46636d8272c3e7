"""The baselines of Distill-CF: summaries of the same budget that are chosen or fitted, not learned.

`chosen` chooses users or interactions, `summaries` makes the artefact, `memory` plans the memory that this takes.
"""

from infrec.pipeline.distillation.baselines.config import BaselineConfig
from infrec.pipeline.distillation.baselines.memory import plan_baseline
from infrec.pipeline.distillation.baselines.summaries import make_baseline

__all__ = ["BaselineConfig", "make_baseline", "plan_baseline"]
