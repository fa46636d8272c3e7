"""The solvers that fit an ∞-AE, and the choice between them.

`exact` solves the kernel system in memory. `tiled` solves the same system in files (`kernel_system`). `nystrom` solves
a smaller system on landmarks (`normal_equations`). `memory` plans the memory and the disk of each, `choice` chooses
one.
"""

from infrec.pipeline.models import Solver
from infrec.pipeline.solvers.choice import (
    Estimate,
    Resources,
    Search,
    choose,
    chosen,
    estimates,
    fit_infinite_ae,
)
from infrec.pipeline.solvers.exact import GramWorker, fit_exact, solve_exact
from infrec.pipeline.solvers.memory import plan_exact, plan_nystrom, plan_tiled
from infrec.pipeline.solvers.normal_equations import (
    STRIP_BYTES,
    STRIP_ENTRIES,
    NormalEquationsWorker,
    strips_of_items,
    sum_in_strips,
    sum_normal_equations,
    train_counts,
)
from infrec.pipeline.solvers.nystrom import fit_nystrom
from infrec.pipeline.solvers.tiled import fit_tiled

__all__ = [
    "STRIP_BYTES",
    "STRIP_ENTRIES",
    "Estimate",
    "GramWorker",
    "NormalEquationsWorker",
    "Resources",
    "Search",
    "Solver",
    "choose",
    "chosen",
    "estimates",
    "fit_exact",
    "fit_infinite_ae",
    "fit_nystrom",
    "fit_tiled",
    "plan_exact",
    "plan_nystrom",
    "plan_tiled",
    "solve_exact",
    "strips_of_items",
    "sum_in_strips",
    "sum_normal_equations",
    "train_counts",
]
