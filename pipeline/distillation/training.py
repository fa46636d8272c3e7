"""The outer loop of Distill-CF: the driver samples and solves, the actors judge it by their users, Adam takes a step.

Each step draws S from the logits, solves α, broadcasts both, adds up the users' dα and dS in a fixed order, and pulls
them back through the solve and the sampler to the logits. Noise and batches are keyed by (seed, step), so a run that
goes on from a checkpoint ends with the bytes of one that was never interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pyarrow as pa
from jaxtyping import Array, Float, Float32

from kernels.distillation import solve_summary, summary_dual
from kernels.tiles import one_blas_thread
from pipeline.artefact import Artefact, ArtefactWriter
from pipeline.dataset import Dataset
from pipeline.distillation.checkpoint import Best, State
from pipeline.distillation.config import DistillConfig, Schedule
from pipeline.distillation.selection import random_users
from pipeline.distillation.users import PartWorker, Users
from pipeline.distillation.warm_start import WarmStart
from pipeline.errors import Diverged, InputError
from pipeline.memory import give_back_memory
from pipeline.plan import Plan, plan_summary
from pipeline.progress import OnValidation, Report, ignored, silent
from pipeline.recommenders.summary import publish_summary
from pipeline.workers import Pool, pool_size

METHOD = "distill-cf"
_WARM_UP_STEPS = 10
_LAST_RATE = 0.02
"""Of the cosine schedule, relative to its peak."""


def distill(
    dataset: Dataset,
    writer: ArtefactWriter,
    config: DistillConfig,
    pool: Pool,
    *,
    warm_start: Artefact | None = None,
    report: Report = silent,
    on_validation: OnValidation = ignored,
) -> Artefact:
    """Learn a summary, and publish the best one by validation.

    Goes on from the checkpoint in the writer's staging directory where there is one; `on_validation` is then called
    for the validations before it, too. Raises `InputError` for a budget
    above the number of users or a warm start that does not fit, and `Diverged` where numbers stop being finite.
    """
    check_budget(config.budget, dataset)
    start = WarmStart.of(warm_start, dataset, config.budget) if warm_start else None
    with pool.workers(PartWorker, dataset, config.parts, config.judged_users, config.seed) as workers:
        users = Users(workers, config.parts)
        optimiser = optax.adam(_learning_rate(config))
        logits = jnp.asarray(start.logits if start else initial_logits(dataset, config))
        fresh = State(0, logits, optimiser.init(logits), sorted(config.lambdas)[len(config.lambdas) // 2])
        state = State.load(writer.work, like=fresh)
        for row in state.history:
            on_validation(row)
        inner = _Inner(config, dataset)
        first = state.step
        while state.step < config.steps and state.stale < config.patience:
            state = _stepped(state, users, inner, optimiser, config, report)
            last = state.step == config.steps
            validates = state.step % config.validate_every == 0 or last
            if validates:
                known, state = len(state.history), _validated(state, users, inner, config)
                for row in state.history[known:]:
                    on_validation(row)
            if validates or state.step == first + 1:  # something was compiled
                give_back_memory()
            if state.step % config.checkpoint_every == 0 or last:
                state.save(writer.work)
    best = state.best
    if best is None:
        raise Diverged(f"No validation up to step {state.step} had finite scores: give a larger --lambda.")
    return publish_summary(
        writer,
        dataset,
        best.summary,
        method=METHOD,
        ntk=config.ntk,
        lam=best.lam,
        config=asdict(config),
        history=pa.Table.from_pylist([dict(row) for row in state.history]),
        counts={"steps": state.step, "best_step": best.step, **(start.counts if start else {})},
        logits=best.logits,
        inputs=start.inputs if start else {},
    )


def plan_distillation(dataset: Dataset, config: DistillConfig, *, workers: int | None = None) -> Plan:
    """The memory that `distill` will take with so many workers; None: those of the connected cluster."""
    return plan_summary(
        users=dataset.num_training_users,
        items=dataset.num_items,
        interactions=dataset.manifest.counts["train"],
        shards=dataset.num_shards,
        budget=config.budget,
        noise_rows=config.sampler.draws * min(config.sampler.groups, config.budget),
        held=min(config.batch + config.judged_users, dataset.num_training_users),
        workers=min(workers or pool_size(), config.parts),
    )


def check_budget(budget: int, dataset: Dataset) -> None:
    """Raise `InputError` for a budget that the dataset has not as many training users as."""
    if not 1 <= budget <= dataset.num_training_users:
        raise InputError(
            f"--budget must lie in 1 … {dataset.num_training_users:,}, the number of training users; it is {budget:,}."
        )


def initial_logits(dataset: Dataset, config: DistillConfig) -> Float32[np.ndarray, "budget items"]:
    """The rows of as many training users, drawn at random without replacement."""
    chosen: np.ndarray = random_users(dataset, config.budget, seed=config.seed).toarray()
    return chosen


def _learning_rate(config: DistillConfig) -> Any:
    if config.schedule == Schedule.CONSTANT:
        return config.learning_rate
    return optax.warmup_cosine_decay_schedule(
        init_value=config.learning_rate / _WARM_UP_STEPS,
        peak_value=config.learning_rate,
        warmup_steps=min(_WARM_UP_STEPS, config.steps // 2),
        decay_steps=max(config.steps, 2),
        end_value=config.learning_rate * _LAST_RATE,
    )


class _Sampled(NamedTuple):
    """A summary, drawn and solved (κα, as the loss sees it), and the way back from its derivatives to the logits'."""

    summary: Float32[np.ndarray, "budget items"]
    dual: Float32[np.ndarray, "budget items"]
    pull_back: Callable[[tuple[Array, Array]], tuple[Array]]


class _Inner:
    """What happens to the logits on the driver: sampling and the inner ridge regression, compiled once.

    With one BLAS thread, which JAX's Cholesky runs on: a summary's bytes must not depend on the number of cores.
    """

    def __init__(self, config: DistillConfig, dataset: Dataset) -> None:
        self._key = jax.random.key(config.seed)
        # d/dS of λ₂ · mean row sum of S ÷ mean row sum of the train matrix
        self._cardinality = config.cardinality / (config.budget * max(dataset.mean_train_interactions, 1.0))

        def sample_and_solve(logits: Array, lam: Array, key: Array) -> tuple[Array, Array]:
            summary = config.sampler(logits, key)
            return summary, config.sharpness * summary_dual(config.ntk, summary, lam)

        @jax.jit
        def differentiable(logits: Array, lam: Array, key: Array) -> tuple[tuple[Array, Array], Any]:
            return jax.vjp(partial(sample_and_solve, lam=lam, key=key), logits)

        self._differentiable = differentiable
        self._sample = jax.jit(config.sampler.__call__)
        self._ntk = config.ntk
        self._pull_back = jax.jit(lambda pull_back, cotangents: pull_back(cotangents)[0])

    def sampled(self, state: State) -> _Sampled:
        key = jax.random.fold_in(self._key, state.step)
        with one_blas_thread:
            (summary, dual), pull_back = self._differentiable(state.logits, jnp.float32(state.lam), key)
            return _Sampled(np.asarray(summary), np.asarray(dual), pull_back)

    def gradient(
        self,
        sampled: _Sampled,
        d_summary: Float32[np.ndarray, "budget items"],
        d_dual: Float32[np.ndarray, "budget items"],
    ) -> Float[Array, "budget items"]:
        """The derivative with respect to the logits, from those with respect to S and α."""
        with one_blas_thread:
            cotangents = jnp.asarray(d_summary + self._cardinality), jnp.asarray(d_dual)
            gradient: Array = self._pull_back(sampled.pull_back, cotangents)
            return gradient.block_until_ready()

    def summary(self, state: State) -> Float32[np.ndarray, "budget items"]:
        return np.asarray(self._sample(state.logits, jax.random.fold_in(self._key, state.step)))

    def dual(self, summary: Float32[np.ndarray, "budget items"], lam: float) -> Float32[np.ndarray, "budget items"]:
        with one_blas_thread:
            return np.asarray(solve_summary(self._ntk, jnp.asarray(summary), lam))


def _stepped(
    state: State,
    users: Users,
    inner: _Inner,
    optimiser: optax.GradientTransformation,
    config: DistillConfig,
    report: Report,
) -> State:
    """One update of the logits, from `accumulate` batches on the same sample."""
    sampled = inner.sampled(state)
    summary, dual = sampled.summary, sampled.dual
    if not np.isfinite(dual).all():
        raise _diverged("solution of the inner regression", state.step, config)
    first = state.step * config.accumulate
    loss, d_dual, d_summary = users.gradients(range(first, first + config.accumulate), summary, dual, config)
    gradient = inner.gradient(sampled, d_summary, d_dual)
    if not (math.isfinite(loss) and bool(jnp.isfinite(gradient).all())):
        raise _diverged("loss" if not math.isfinite(loss) else "gradient", state.step, config)
    logits, optimiser_state = _updated(optimiser, gradient, state.optimiser, state.logits)
    if not bool(jnp.isfinite(logits).all()):
        raise _diverged("update", state.step, config)
    known = state.best.metrics[config.select] if state.best else None
    best = {} if known is None else {f"best {config.select}": known}
    report("Steps", state.step + 1, config.steps, {"loss": loss, **best})
    return replace(state, step=state.step + 1, logits=logits, optimiser=optimiser_state)


@partial(jax.jit, static_argnames="optimiser")
def _updated(
    optimiser: optax.GradientTransformation, gradient: Array, state: optax.OptState, logits: Array
) -> tuple[Array, optax.OptState]:
    updates, state = optimiser.update(gradient, state, logits)
    return jnp.asarray(optax.apply_updates(logits, updates)), state


def _validated(state: State, users: Users, inner: _Inner, config: DistillConfig) -> State:
    """Judge the summary as it is now with every λ; the best λ goes into the loss, the best summary is kept."""
    summary = inner.summary(state)
    duals = {lam: inner.dual(summary, lam) for lam in config.lambdas}
    finite = {lam: dual for lam, dual in duals.items() if np.isfinite(dual).all()}
    if not finite:
        return replace(state, stale=state.stale + 1)
    judged = dict(zip(finite, users.judge(config.ntk, summary, list(finite.values())), strict=True))
    lam = max(judged, key=lambda lam: judged[lam][config.select])
    row = {"step": state.step, "lambda": lam, **judged[lam]}
    state = replace(state, lam=lam, stale=state.stale + 1, history=(*state.history, row))
    if state.best is None or judged[lam][config.select] > state.best.metrics[config.select]:
        best = Best(state.step, lam, judged[lam], summary, np.asarray(state.logits))
        state = replace(state, best=best, stale=0)
    return state


def _diverged(what: str, step: int, config: DistillConfig) -> Diverged:
    return Diverged(
        f"The {what} is not finite at step {step + 1}: lower --learning-rate ({config.learning_rate:g}), or raise the "
        f"smallest --lambda ({min(config.lambdas):g}) or --temperature ({config.sampler.temperature:g}); "
        f"the last good checkpoint is kept."
    )
