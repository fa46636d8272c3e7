"""Distill-CF as a whole, on real actors: it learns, it does not depend on who computes, and it goes on after a kill."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

from infrec.kernels.ntk import NTK
from infrec.kernels.outer_loss import InnerModel
from infrec.pipeline.cluster import Pool, Report, ThreadPool
from infrec.pipeline.data import Dataset
from infrec.pipeline.distillation import DistillConfig, Labels, Objective, Schedule, training
from infrec.pipeline.distillation.initial import random_users
from infrec.pipeline.distillation.memory import plan_summary
from infrec.pipeline.distillation.part_worker import Coefficients, PartWorker
from infrec.pipeline.distillation.users import Users
from infrec.pipeline.models import HISTORY, labels_of, load_recommender, publish_summary, summary_matrix
from infrec.pipeline.serving import evaluate
from infrec.pipeline.storage import Artefact, ArtefactWriter, Diverged, InputError, Kind
from tests import oracles
from tests.builders import taste_dataset
from tests.distilling import CONFIG, summarise
from tests.killing import Kill
from tests.models import checksums
from tests.nodes import by_itself


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return taste_dataset(tmp_path_factory.mktemp("distillation") / "data", 500, 80, seed=5, shards=3)


@pytest.fixture(scope="module")
def summary(dataset: Dataset, pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """The summary of a run that nothing happened to."""
    return summarise(dataset, tmp_path_factory.mktemp("distillation") / "summary", pool)


def test_it_learns_more_than_its_first_users_knew(
    dataset: Dataset, summary: Artefact, pool: Pool, tmp_path: Path
) -> None:
    """It begins with what users like some real ones have in common. An ∞-AE of these real users has a tuned λ."""
    real = random_users(dataset, CONFIG.budget, seed=CONFIG.seed).toarray()
    metrics = [evaluate(str(summary.location), dataset, pool).metrics["nDCG@10"]]
    for lam in (0.1, 1.0, 5.0):
        with ArtefactWriter(tmp_path / f"{lam}", Kind.SUMMARY, purpose={}) as writer:
            publish_summary(
                writer,
                dataset,
                real,
                method="random-users",
                ntk=CONFIG.ntk,
                lam=lam,
                config={},
                history=summary.table(HISTORY),
            )
        metrics.append(evaluate(str(tmp_path / f"{lam}"), dataset, pool).metrics["nDCG@10"])
    assert metrics[0] > 1.15 * max(metrics[1:])
    *history, solved = summary.table(HISTORY).to_pylist()
    assert [row["step"] for row in history] == [8, 16, 24]
    assert solved["step"] == summary.manifest.counts["best_step"] and solved["ridge"] > 0


@pytest.mark.parametrize("objective", list(Objective))
def test_its_own_labels_get_better(objective: Objective, dataset: Dataset, pool: Pool, tmp_path: Path) -> None:
    config = replace(CONFIG, objective=objective, user_weight=0.0, steps=16, labels=Labels.OWN)
    history = summarise(dataset, tmp_path / "summary", pool, config).table(HISTORY).to_pylist()
    assert history[-1]["nDCG@10"] > history[0]["nDCG@10"]


def test_scores_are_those_of_ridge_regression_on_the_table(dataset: Dataset, summary: Artefact) -> None:
    rows, lam = summary_matrix(summary), summary.manifest.config["lambda"]
    context = dataset.histories().context("test")[:30]
    kernel = oracles.ntk_matrix(rows, rows, depth=1, w_std=2**0.5, b_std=0.1).astype(float)
    labels = labels_of(summary)
    dual = oracles.ridge_regression(kernel, rows if labels is None else labels, lam * np.trace(kernel) / len(kernel))
    across = oracles.ntk_matrix(context.toarray(), rows, depth=1, w_std=2**0.5, b_std=0.1).astype(float)
    scores = load_recommender(summary).scores(sp.csr_array(context))
    # λ is tiny and float32 has its say about the last digits of α
    np.testing.assert_allclose(scores, across @ dual, atol=0.02 * np.abs(across @ dual).max())


def test_weights_are_a_sample(summary: Artefact) -> None:
    rows = summary_matrix(summary)
    assert rows.shape == (CONFIG.budget, 80)
    assert rows.min() >= 0 and 0 < rows.max() <= 1
    assert (rows.sum(axis=1) <= 30.5).all()


def noting(steps: list[int]) -> Report:
    """A report that notes the steps of the learning, and nothing of what follows them."""

    def report(phase: str, done: int, total: int, detail: object = "") -> None:
        if phase == "Steps":
            steps.append(done)

    return report


@pytest.mark.parametrize(
    ("phase", "at", "left"),
    [
        ("Steps", 15, range(13, 25)),
        ("Steps", 22, range(21, 25)),
        ("Labels", 1, range(0)),
        ("Labels", 2, range(0)),
    ],
)
def test_a_killed_run_goes_on_to_the_same_bytes(
    phase: str, at: int, left: range, dataset: Dataset, summary: Artefact, pool: Pool, tmp_path: Path
) -> None:
    """Killed before the restart at step 16, or after it; or while labels are solved."""
    out = tmp_path / "summary"
    killed = by_itself(distill_until_killed, str(dataset.artefact.location), str(out), phase, at)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    steps: list[int] = []
    again = summarise(dataset, out, pool, report=noting(steps))
    assert steps == list(left)
    assert again.manifest.fingerprint() == summary.manifest.fingerprint()
    assert checksums(again) == checksums(summary)


def distill_until_killed(dataset: str, out: str, in_phase: str, at: int) -> None:
    """In a process without Ray: nothing of an actor's is kept."""

    def report(phase: str, done: int, total: int, detail: str = "") -> None:
        if phase.startswith(in_phase) and done == at:
            os.kill(os.getpid(), signal.SIGKILL)

    summarise(Dataset.open(dataset), Path(out), ThreadPool(), report=report)


def test_a_full_disk_leaves_the_last_good_checkpoint(
    dataset: Dataset, summary: Artefact, pool: Pool, tmp_path: Path
) -> None:
    """No file may grow beyond a kilobyte after step 6, so this process cannot write the checkpoint of step 8."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(phase: str, done: int, total: int, detail: str = "") -> None:
        if done == 6:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))

    try:
        with pytest.raises(OSError, match="File too large"):
            summarise(dataset, tmp_path / "summary", pool, report=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    steps: list[int] = []
    again = summarise(dataset, tmp_path / "summary", pool, report=noting(steps))
    assert steps[0] == 5
    assert again.manifest.fingerprint() == summary.manifest.fingerprint()


@pytest.mark.parametrize("damage", ["cut off", "changed"])
def test_a_damaged_checkpoint_counts_as_none(
    damage: str, dataset: Dataset, summary: Artefact, pool: Pool, tmp_path: Path
) -> None:
    def stop(phase: str, done: int, total: int, detail: str = "") -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        summarise(dataset, tmp_path / "summary", pool, report=stop)
    (checkpoint,) = tmp_path.rglob("checkpoint.npz")
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content if damage == "changed" else content[: len(content) // 2])
    steps: list[int] = []
    again = summarise(dataset, tmp_path / "summary", pool, report=noting(steps))
    assert steps[0] == 1
    assert again.manifest.fingerprint() == summary.manifest.fingerprint()


def test_more_parts_than_users(pool: Pool, tmp_path: Path) -> None:
    few = taste_dataset(tmp_path / "few", 5, 30, seed=1)
    config = DistillConfig(budget=2, steps=2, parts=8)
    made = summarise(few, tmp_path / "summary", pool, config)
    assert (summary_matrix(made).sum(axis=1) > 0).all()


def test_a_killed_actor_changes_nothing(dataset: Dataset, summary: Artefact, pool: Pool, tmp_path: Path) -> None:
    kill = Kill("Steps")
    again = summarise(dataset, tmp_path / "summary", pool, report=kill)
    assert kill.killed
    assert again.manifest.fingerprint() == summary.manifest.fingerprint()


def test_what_is_not_finite_stops_and_keeps_the_last_checkpoint(dataset: Dataset, pool: Pool, tmp_path: Path) -> None:
    """A learning rate at which logits overflow float32 within some steps."""
    config = replace(CONFIG, learning_rate=1e38, schedule=Schedule.CONSTANT, checkpoint_every=1)
    with pytest.raises(Diverged, match=r"is not finite at step \d+: lower the learning rate"):
        summarise(dataset, tmp_path / "summary", pool, config)
    assert not (tmp_path / "summary").exists()
    with np.load(tmp_path / ".summary.partial" / "_work" / "checkpoint.npz") as checkpoint:
        assert np.isfinite(checkpoint["logits"]).all()


def test_a_budget_above_the_users_is_refused(dataset: Dataset, pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"The budget must lie in 1 … 500, the number of training users; it is 501"):
        summarise(dataset, tmp_path / "summary", pool, replace(CONFIG, budget=501))


def test_a_batch_of_everyone_is_everyone(dataset: Dataset, pool: Pool) -> None:
    """The loss of all users at once is that of the dense formula, whatever the parts."""
    config = replace(CONFIG, objective=Objective.OFFICIAL, batch=10_000, user_weight=0.0, parts=3)
    train = dataset.training_matrix()
    rows = random_users(dataset, config.budget, seed=config.seed).toarray()
    model = InnerModel(*(np.asarray(array) for array in InnerModel.of(config.ntk, jnp.asarray(rows), 0.1)))
    with pool.workers(PartWorker, dataset, config.parts, config.judged_users, config.seed) as workers:
        found = Users(workers, config.parts).gradients([0], model, config)
    kernel = oracles.ntk_matrix(train.toarray(), rows, depth=1, w_std=2**0.5, b_std=0.1).astype(float)
    dense, weights = train.toarray(), np.ones(train.shape[0])
    scores = kernel @ np.asarray(model.dual())
    expected = oracles.multinomial_loss(scores, dense, np.zeros_like(dense), weights) / train.shape[0]
    assert found.loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("labels", "expected"), [(Labels.SOLVED, [3]), (Labels.OWN, [3, 3])])
def test_lambda_is_chosen_once_where_labels_are_solved(
    labels: Labels,
    expected: list[int],
    dataset: Dataset,
    pool: Pool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For a user's own labels λ is all that a validation can choose, so each of the two tries every λ."""
    judge, tried = Users.judge, []

    def watched(users: Users, ntk: NTK, summary: np.ndarray, models: Sequence[Coefficients]) -> list[dict[str, float]]:
        if models[0].labels is None:
            tried.append(len(models))
        return judge(users, ntk, summary, models)

    monkeypatch.setattr(Users, "judge", watched)
    made = summarise(dataset, tmp_path / "summary", pool, replace(CONFIG, labels=labels, restarts=0))
    assert tried == expected
    assert labels == Labels.OWN or len({row["lambda"] for row in made.table(HISTORY).to_pylist()}) == 1


def test_a_lambda_that_has_no_solution_any_more_gives_way_to_another(
    dataset: Dataset, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first validation asks for three solutions. The second asks for that of the λ it chose, and in vain."""
    solve, asked = training.solve_summary, []

    def singular(ntk: NTK, summary: np.ndarray, lam: float, *labels: np.ndarray) -> np.ndarray:
        asked.append(lam)
        solution = solve(ntk, summary, lam, *labels)
        return np.full_like(solution, np.nan) if len(asked) > 3 and lam == asked[3] else solution

    monkeypatch.setattr(training, "solve_summary", singular)
    made = summarise(dataset, tmp_path / "summary", pool, replace(CONFIG, restarts=0))
    first, second, _ = (row["lambda"] for row in made.table(HISTORY).to_pylist())
    assert first == asked[3]
    assert second in {*CONFIG.lambdas} - {first}


def test_the_history_says_what_was_tried(summary: Artefact) -> None:
    *history, labelled = summary.table(HISTORY).to_pylist()
    best = max(history, key=lambda row: row["nDCG@10"])
    assert best["step"] == labelled["step"] == summary.manifest.counts["best_step"]
    assert best["lambda"] == summary.manifest.config["lambda"]
    assert json.loads(json.dumps(summary.manifest.config["options"]))["budget"] == 20


def test_the_plan_grows_with_the_summary_and_not_with_the_log() -> None:
    """Users ten times as many, in ten times as many shards, cost files and no memory."""
    shape: dict[str, int] = {
        "items": 17_770,
        "weighted": 17_770,
        "noise_rows": 800,
        "held": 11_536,
        "workers": 2,
    }
    log = plan_summary(users=480_000, interactions=68_000_000, shards=96, budget=500, rank=160, **shape)
    longer = plan_summary(users=4_800_000, interactions=680_000_000, shards=960, budget=500, rank=160, **shape)
    assert longer.peak == pytest.approx(log.peak, rel=0.01)
    assert longer.disk == 10 * log.disk
    more = plan_summary(users=480_000, interactions=68_000_000, shards=96, budget=1000, rank=160, **shape)
    assert more.peak - log.peak > 20 * 4 * 500 * 17_770
