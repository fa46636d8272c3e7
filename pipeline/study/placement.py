"""The resources that a trial takes on a node. Ray places as many trials on every node as the node has room for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import ray

from infrec.pipeline.cluster import Plan
from infrec.pipeline.data import Dataset
from infrec.pipeline.distillation import plan_summarise
from infrec.pipeline.models import EASEConfig, MFConfig, plan_ease, plan_mf
from infrec.pipeline.serving import Learner
from infrec.pipeline.solvers import Estimate, Resources, Search, Solver, chosen, estimates
from infrec.pipeline.storage import InputError
from infrec.pipeline.study.config import SweepConfig


@dataclass(frozen=True, kw_only=True)
class Share:
    """The resources that a trial takes on a node."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0
    """Bytes."""


def room_for(
    dataset: Dataset, config: SweepConfig, search: Search, share: Share, *, memory_limit: int | None, disk: int | None
) -> tuple[Share, Solver]:
    """Return `share` with the memory of the largest trial, and the solver of the ∞-AE on all users, which is a trial.

    The memory is the same for all trials, so that a process can run one trial after another. Trials take up to
    `memory_limit` bytes of a node; None means all that it offers. Raises `InputError` if no node has the CPUs and GPUs
    of a trial, and `DoesNotFit` if none has the memory.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    able = [node for node in nodes if node.get("CPU", 0) >= share.cpus and node.get("GPU", 0) >= share.gpus]
    if not able:
        raise InputError(
            f"No node has {share.cpus:g} CPUs and {share.gpus:g} GPUs for a trial: lower one of them.",
            *("trial_cpus", "trial_gpus"),
        )
    node = max(able, key=lambda node: node["memory"])
    offered = min(int(node["memory"]), memory_limit or int(node["memory"]))
    largest = max(_plans(dataset, config), key=lambda plan: plan.peak)
    largest.require(offered)
    at_once = min(int(node["CPU"] / share.cpus), offered // largest.peak)
    if share.gpus:
        at_once = min(at_once, int(node["GPU"] / share.gpus))
    all_users = _estimate(dataset, search, offered, at_once, disk)
    peak = max(largest.peak, all_users.plan.peak)
    # Ray counts all memory of the node, not the limit: a trial asks for the same fraction of all as of the limit
    return replace(share, memory=peak * int(node["memory"]) // offered), all_users.solver


def _plans(dataset: Dataset, config: SweepConfig) -> Iterator[Plan]:
    """Yield the plan of everything that a trial may do, except for the ∞-AE on all users."""
    for trial in config.summaries():
        yield plan_summarise(dataset, trial.config, workers=1)
    if Learner.EASE in config.learners:
        yield plan_ease(dataset, EASEConfig())
    if Learner.MF in config.learners:
        yield plan_mf(dataset, MFConfig())


def _estimate(dataset: Dataset, search: Search, memory: int, at_once: int, disk: int | None) -> Estimate:
    """Return the best solver that leaves room for so many trials; if there is none, the one that takes least memory."""
    each = Resources(cpus=1, memory=memory // at_once, disk=disk)
    known = estimates(dataset, search, each, workers=1)
    if all(one.obstacle(each) for one in known):
        each = replace(each, memory=memory)
        known.sort(key=lambda one: one.plan.peak)
    return chosen(known, each)
