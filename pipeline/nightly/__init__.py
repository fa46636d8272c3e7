"""A summary that is made again and again as its log grows.

`run` is one turn: `log_changes` (what is new) → ingest → distillation → `gate` (is it as good?) → `state` (versions,
one of them current), under the lock of `pipeline.storage`, told in `history`. `clock` writes times as the log does.
"""

from infrec.pipeline.nightly.config import ResummarizeConfig
from infrec.pipeline.nightly.history import Decision, rows
from infrec.pipeline.nightly.run import look, resummarize, roll_back
from infrec.pipeline.nightly.state import State

__all__ = ["Decision", "ResummarizeConfig", "State", "look", "resummarize", "roll_back", "rows"]
