"""Computing, on Ray or in this process: the session, pools of workers, plain tasks, plans, and reports of progress.

`sessions` decides where a job computes, and starts or joins Ray. `pool` has the workers: `actors` on Ray, `threads` in
this process. `tasks` maps a function over many inputs. `plan` says how much memory a job takes, `work` how much time,
and `memory` gives freed memory back. `progress` and `telemetry` report how far a job is. `submission` sends a job to
another cluster. It is imported by name: its import takes half a second, and few jobs need it.
"""

from infrec.pipeline.cluster.memory import give_back_memory
from infrec.pipeline.cluster.plan import COPIES, DRIVER, INTERACTION, WORKER, Plan, gigabytes
from infrec.pipeline.cluster.pool import Pool, Workers
from infrec.pipeline.cluster.progress import Detail, OnValidation, Report, ignored, silent
from infrec.pipeline.cluster.sessions import (
    Cluster,
    available_cpus,
    environment,
    in_ray_session,
    open_pool,
    pool_size,
    ray_session,
    session,
    this_machine,
)
from infrec.pipeline.cluster.tasks import TaskMap, map_tasks, map_threads
from infrec.pipeline.cluster.telemetry import Run, Telemetry
from infrec.pipeline.cluster.threads import ThreadPool
from infrec.pipeline.cluster.work import NOMINAL_RATE, Work

__all__ = [
    "COPIES",
    "DRIVER",
    "INTERACTION",
    "NOMINAL_RATE",
    "WORKER",
    "Cluster",
    "Detail",
    "OnValidation",
    "Plan",
    "Pool",
    "Report",
    "Run",
    "TaskMap",
    "Telemetry",
    "ThreadPool",
    "Work",
    "Workers",
    "available_cpus",
    "environment",
    "gigabytes",
    "give_back_memory",
    "ignored",
    "in_ray_session",
    "map_tasks",
    "map_threads",
    "open_pool",
    "pool_size",
    "ray_session",
    "session",
    "silent",
    "this_machine",
]
