"""The outer loop of Distill-CF: the driver samples and solves, the actors judge by their users, Adam takes a step.

Each step draws S from the logits, trains a model on S, and broadcasts both. It adds up the users' dβ and dS in a fixed
order, and pulls them back through the solve and the sampler to the logits. Noise and batches are keyed by (seed, step).
So a run that continues from a checkpoint ends with the same bytes as a run that was never interrupted.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pyarrow as pa
from jaxtyping import Array, Float32, Int

from infrec.kernels.inner_regression import InnerStep, solve_summary
from infrec.kernels.levels import RoundedRows
from infrec.kernels.tiles import one_blas_thread
from infrec.pipeline.cluster import OnValidation, Pool, Report, give_back_memory, ignored, silent
from infrec.pipeline.data import Dataset
from infrec.pipeline.distillation.checkpoint import Best, State
from infrec.pipeline.distillation.config import DistillConfig, Labels, Method, Schedule
from infrec.pipeline.distillation.initial import check_budget, first_logits, restarted_logits, weighted_items
from infrec.pipeline.distillation.labels import LabelSystem
from infrec.pipeline.distillation.part_worker import Coefficients, PartWorker
from infrec.pipeline.distillation.users import Users
from infrec.pipeline.distillation.warm_start import WarmStart
from infrec.pipeline.models import LabelledRows, publish_labelled_summary, publish_summary
from infrec.pipeline.storage import Artefact, ArtefactWriter, Diverged

_WARM_UP_STEPS = 10
_LAST_RATE = 0.02
"""The last rate of the cosine schedule, relative to its peak."""


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
    """Learn a summary, and publish the best one by validation. Its config is `config.for_items` of the dataset.

    If the writer's staging directory has a checkpoint, the run continues from it. `on_validation` is then called for
    the validations before it, too. Raises `InputError` if the budget is above the number of training users or the warm
    start does not fit, and `Diverged` if numbers stop being finite.
    """
    check_budget(config.budget, dataset)
    items = weighted_items(dataset, config)
    config = config.for_items(len(items))
    start = WarmStart.of(warm_start, dataset, items, config) if warm_start else None
    part_workers = pool.workers(PartWorker, dataset, config.parts, config.judged_users, config.seed, items)
    with part_workers as workers, one_blas_thread:  # once for all steps: the search for libraries is slow
        users = Users(workers, config.parts)
        solved = None
        if config.labels == Labels.SOLVED:
            counts = dataset.items()["train_count"].to_numpy()[items]
            solved = _SolvedLabels(users, config, counts, dataset.mean_train_interactions)
        optimiser = optax.adam(_learning_rate(config))
        logits = jnp.asarray(first_logits(dataset, config, items, start))
        fresh = State(0, logits, optimiser.init(logits), sorted(config.lambdas)[len(config.lambdas) // 2])
        state = State.load(writer.work, like=fresh)
        for row in state.history:
            on_validation(row)
        inner = InnerStep(sampler=config.sampler, ntk=config.ntk, sharpness=config.sharpness, seed=config.seed)
        # This is the derivative by S of λ₂ · mean row sum of S ÷ mean row sum of the train matrix
        cardinality = config.cardinality / (config.budget * max(dataset.mean_train_interactions, 1.0))
        first = state.step
        while not _ended(state, config) or _restarts(state, config):
            if _ended(state, config):
                state = _restarted(state, dataset, config, items, optimiser)
            state = _stepped(state, users, inner, optimiser, config, cardinality, report)
            done = state.step - state.begun
            last = done == config.steps_after(state.restarts)
            validates = done % config.validate_every == 0 or last
            if validates:
                known, state = len(state.history), _validated(state, users, inner, config, solved)
                for row in state.history[known:]:
                    on_validation(row)
            if validates or state.step == first + 1:  # something was compiled
                give_back_memory()
            if state.step % config.checkpoint_every == 0 or last:
                state.save(writer.work)
        best = state.best
        if best is None:
            raise Diverged(f"No validation up to step {state.step} had finite scores: give a larger λ.", "lambdas")
        described: dict[str, Any] = {
            "method": Method.DISTILL_CF,
            "ntk": config.ntk,
            "lam": best.lam,
            "config": asdict(config),
            "counts": {"steps": state.step, "best_step": best.step, **(start.counts if start else {})},
            "inputs": start.inputs if start else {},
        }
        if solved is None:
            history = pa.Table.from_pylist([dict(row) for row in state.history])
            summary = publish_summary(writer, dataset, best.summary, history=history, **described)
        else:
            weights = solved.rounded(best.summary)
            system = solved.system(weights, best.lam, config.label_draws, dataset.num_items, report)
            labels = system.solve(best.label_exponent, report)
            row = {"step": best.step, "lambda": best.lam, "ridge": labels.ridge, **labels.metrics}
            on_validation(row)
            history = pa.Table.from_pylist([*(dict(row) for row in state.history), row])
            rows = LabelledRows(items, weights, *labels.labels)
            summary = publish_labelled_summary(writer, dataset, rows, history=history, **described)
    give_back_memory()  # the table of a summary has a row for each of its entries
    return summary


def _ended(state: State, config: DistillConfig) -> bool:
    """Tell whether the steps since the last restart are all done, or have found nothing better for too long."""
    return state.step - state.begun == config.steps_after(state.restarts) or state.stale >= config.patience


def _restarts(state: State, config: DistillConfig) -> bool:
    """Tell whether the steps begin anew once they have ended: as long as they found the best summary so far."""
    return state.restarts < config.restarts and state.best is not None and state.best.step > state.begun


def _restarted(
    state: State,
    dataset: Dataset,
    config: DistillConfig,
    items: Int[np.ndarray, " weighted"],
    optimiser: optax.GradientTransformation,
) -> State:
    assert state.best
    restarts = state.restarts + 1
    logits = jnp.asarray(restarted_logits(dataset, config, items, state.best.summary, restarts))
    return replace(state, restarts=restarts, begun=state.step, stale=0, logits=logits, optimiser=optimiser.init(logits))


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


def _stepped(
    state: State,
    users: Users,
    inner: InnerStep,
    optimiser: optax.GradientTransformation,
    config: DistillConfig,
    cardinality: float,
    report: Report,
) -> State:
    """Return the state after one update of the logits, from `accumulate` batches on the same sample."""
    model, pull_back = inner.sampled(np.asarray(state.logits), state.lam, state.step)
    if not np.isfinite(model.coefficients).all():
        raise _diverged("solution of the inner regression", state.step, config)
    first = state.step * config.accumulate
    gradients = users.gradients(range(first, first + config.accumulate), model, config)
    gradients.summary[:] += cardinality
    loss, gradient = gradients.loss, pull_back(gradients)
    if not (math.isfinite(loss) and np.isfinite(gradient).all()):
        raise _diverged("loss" if not math.isfinite(loss) else "gradient", state.step, config)
    logits, optimiser_state = _updated(optimiser, gradient, state.optimiser, state.logits)
    if not np.isfinite(logits).all():
        raise _diverged("update", state.step, config)
    known = state.best.metrics[config.select] if state.best else None
    best = {} if known is None else {f"best {config.select}": known}
    report("Steps", state.step + 1, state.begun + config.steps_after(state.restarts), {"loss": loss, **best})
    return replace(state, step=state.step + 1, logits=logits, optimiser=optimiser_state)


@partial(jax.jit, static_argnames="optimiser", donate_argnames=("state", "logits"))
def _updated(
    optimiser: optax.GradientTransformation, gradient: Array, state: optax.OptState, logits: Array
) -> tuple[Array, optax.OptState]:
    updates, state = optimiser.update(gradient, state, logits)
    return jnp.asarray(optax.apply_updates(logits, updates)), state


@dataclass(frozen=True)
class _SolvedLabels:
    """The way from a summary to its rounded weights and their labels."""

    users: Users
    config: DistillConfig
    counts: Int[np.ndarray, " weighted"]
    """The number of training users that have each weighted item."""
    mean_size: float
    """The mean number of interactions of a training user."""

    def rounded(self, summary: Float32[np.ndarray, "budget weighted"]) -> RoundedRows:
        return RoundedRows.of(summary, self.counts, self.config.weight_step)

    def system(
        self, weights: RoundedRows, lam: float, draws: int = 1, items: int | None = None, report: Report = silent
    ) -> LabelSystem:
        return LabelSystem.of(
            self.users,
            self.config,
            weights.matrix,
            lam,
            mean_size=self.mean_size,
            draws=draws,
            items=items,
            report=report,
        )


def _validated(
    state: State, users: Users, inner: InnerStep, config: DistillConfig, solved: _SolvedLabels | None
) -> State:
    """Judge the present summary. The λ that it chooses goes into the loss, and the state keeps the best summary.

    With `solved` labels, a summary is as good as the labels of its weighted items, solved in one draw of the users.
    Every validation chooses their c'. So λ stays as the first one chose it, unless it has no finite solution any more.
    """
    summary = inner.summary(np.asarray(state.logits), state.step)
    lam, exponent, metrics = state.lam, None, {}
    rounded = solved.rounded(summary) if solved else None
    if not (rounded and state.history and _has_solution(config, rounded.matrix, lam)):
        judged = _judged_with_own_labels(users, config, summary)
        if not judged:
            return replace(state, stale=state.stale + 1)
        lam = max(judged, key=lambda lam: judged[lam][config.select])
        metrics = judged[lam]
    if solved and rounded:
        near = state.best.label_exponent if state.best else None
        exponent, metrics = solved.system(rounded, lam).best_exponent(near)
    ridge = None if exponent is None else 10.0**exponent
    row: dict[str, float | None] = {"step": state.step, "lambda": lam, "ridge": ridge, **metrics}
    state = replace(state, lam=lam, stale=state.stale + 1, history=(*state.history, row))
    if state.best is None or metrics[config.select] > state.best.metrics[config.select]:
        state = replace(state, best=Best(state.step, lam, exponent, metrics, summary), stale=0)
    return state


def _has_solution(config: DistillConfig, summary: Float32[np.ndarray, "budget weighted"], lam: float) -> bool:
    """Tell whether the inner regression has a finite solution. That does not depend on the labels, so one item does."""
    return bool(np.isfinite(solve_summary(config.ntk, summary, lam, summary[:, :1])).all())


def _judged_with_own_labels(
    users: Users, config: DistillConfig, summary: Float32[np.ndarray, "budget weighted"]
) -> dict[float, dict[str, float]]:
    """Return the metrics of a summary whose labels are its own rows, for each λ with which it has a finite solution."""
    duals = {lam: solve_summary(config.ntk, summary, lam) for lam in config.lambdas}
    finite = {lam: Coefficients(dual) for lam, dual in duals.items() if np.isfinite(dual).all()}
    return dict(zip(finite, users.judge(config.ntk, summary, list(finite.values())), strict=True)) if finite else {}


def _diverged(what: str, step: int, config: DistillConfig) -> Diverged:
    return Diverged(
        f"The {what} is not finite at step {step + 1}: lower the learning rate ({config.learning_rate:g}), or raise "
        f"the smallest λ ({min(config.lambdas):g}) or the temperature ({config.sampler.temperature:g}); "
        f"the last good checkpoint is kept.",
        *("learning_rate", "lambdas", "temperature"),
    )
