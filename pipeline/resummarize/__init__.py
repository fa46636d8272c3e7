"""A summary that is made again and again as its log grows. `run` is one turn: `partitions` (what is new) → ingest →
distillation → `gate` (is it as good?) → `state` (versions, one of them current), under `lock`, told in `history`.
"""

from pipeline.resummarize.config import ResummarizeConfig
from pipeline.resummarize.lock import hold
from pipeline.resummarize.run import look, resummarize, roll_back
from pipeline.resummarize.state import State

__all__ = ["ResummarizeConfig", "State", "hold", "look", "resummarize", "roll_back"]
