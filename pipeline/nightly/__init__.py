"""A summary that is made again and again as its log grows.

`run` does one run. `log_changes` finds what is new in the log. Ingest and distillation make a new version, and `gate`
decides whether its summary is good enough. `state` keeps the versions, one of which is current. A run holds the lock of
`pipeline.storage`, and `history` records its outcome. `clock` writes times as the log does.
"""

from infrec.pipeline.nightly.config import ResummarizeConfig
from infrec.pipeline.nightly.history import Decision, rows
from infrec.pipeline.nightly.run import look, resummarize, roll_back
from infrec.pipeline.nightly.state import State

__all__ = ["Decision", "ResummarizeConfig", "State", "look", "resummarize", "roll_back", "rows"]
