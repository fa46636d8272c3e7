"""Budget sweeps with Ray Tune, and the report of what they found.

`config` says which trials there are, `space` what is searched, `room` what they take of a node; `trial` does one of
them in one process, `trials` many of them under Tune, `run` the whole sweep; `findings` is what it found, `report` and
`figures` show it.
"""

from pipeline.sweep.config import SweepConfig
from pipeline.sweep.findings import Findings
from pipeline.sweep.room import Share
from pipeline.sweep.run import REPORT, check_budgets, sweep

__all__ = ["REPORT", "Findings", "Share", "SweepConfig", "check_budgets", "sweep"]
