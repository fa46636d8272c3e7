"""Computing on Ray: the session, pools of actors, plain tasks, plans of memory, and reports of progress.

`session` starts or joins Ray. `pool` has the actors, and `tasks` maps a function over many inputs. `plan` says how much
memory a job takes, and `memory` gives freed memory back. `progress` and `telemetry` report how far a job is.
`submission` sends a job to another cluster. It is imported by name: its import takes half a second, and few jobs need
it.
"""

from infrec.pipeline.cluster.memory import give_back_memory
from infrec.pipeline.cluster.plan import COPIES, DRIVER, INTERACTION, WORKER, Plan, gigabytes
from infrec.pipeline.cluster.pool import InProcess, Pool, Workers, pool_size
from infrec.pipeline.cluster.progress import Detail, OnValidation, Report, ignored, silent
from infrec.pipeline.cluster.session import Cluster, environment, ray_session
from infrec.pipeline.cluster.tasks import TaskMap, available_cpus, map_tasks, map_threads
from infrec.pipeline.cluster.telemetry import Run, Telemetry

__all__ = [
    "COPIES",
    "DRIVER",
    "INTERACTION",
    "WORKER",
    "Cluster",
    "Detail",
    "InProcess",
    "OnValidation",
    "Plan",
    "Pool",
    "Report",
    "Run",
    "TaskMap",
    "Telemetry",
    "Workers",
    "available_cpus",
    "environment",
    "gigabytes",
    "give_back_memory",
    "ignored",
    "map_tasks",
    "map_threads",
    "pool_size",
    "ray_session",
    "silent",
]
