"""`infrec sweep` on the real Tune: what is tried, chosen, tested and published; nothing that is known is done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from infrec.jobs.cli import main
from infrec.pipeline.cluster import Cluster, Report, ThreadPool, silent
from infrec.pipeline.data import Dataset, PerturbConfig, perturb_dataset
from infrec.pipeline.distillation import DistillConfig, Method, distill
from infrec.pipeline.models import EASEConfig, MFConfig, fit_ease, fit_mf
from infrec.pipeline.report.findings import ALL_USERS, METRICS, Findings
from infrec.pipeline.serving import Learner, evaluate
from infrec.pipeline.solvers import Solver
from infrec.pipeline.storage import Artefact, ArtefactWriter, Kind, Location
from infrec.pipeline.study.bench import Bench, paper_search
from infrec.pipeline.study.config import SweepConfig
from infrec.pipeline.study.placement import Share
from infrec.pipeline.study.run import sweep as run_sweep
from infrec.pipeline.study.space import with_parameters
from tests.builders import taste_dataset
from tests.nodes import joining
from tests.sentence import assert_one_sentence
from tests.sweeps import metrics_of_trials, recommended

SHORT = {"steps": 8, "validate_every": 2, "draws": 20}
SPACE = "steps = 8; validate_every = 2; draws = 20; temperature = [1e6, 1e7]".replace("; ", "\n")
"""So hot that a synthetic user likes everything alike."""
NOISY: dict[str, Any] = {
    "budgets": (5,),
    "methods": (Method.DISTILL_CF, Method.RANDOM_USERS),
    "noise": (0.2,),
    "seeds": 1,
}
"""Six trials: all users, and two methods, without noise and with it."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return taste_dataset(tmp_path_factory.mktemp("sweep") / "dataset", 120, 60, seed=0)


@pytest.fixture(scope="module")
def undisturbed(dataset: Dataset, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    made, _ = sweep(dataset, tmp_path_factory.mktemp("sweep") / "undisturbed", **NOISY)
    return made


def sweep(dataset: Dataset, out: Path, *, report: Report = silent, **config: Any) -> tuple[Artefact, Findings]:
    with ArtefactWriter(out, Kind.SWEEP, purpose={"of": "a test"}) as writer:
        return run_sweep(dataset, writer, SweepConfig(**{"space": SHORT, **config}), Share(), report=report)


def test_a_sweep_from_the_command_line(
    dataset: Dataset, cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A search, two methods and two learners; the recommended summary is what `infrec distill` makes."""
    out, data, space = tmp_path / "report", str(dataset.artefact.location), tmp_path / "space.toml"
    space.write_text(SPACE)
    command = ["sweep", data, "--out", str(out), "--budgets", "5,10", "--methods", "distill-cf,nystrom"]
    command += ["--learners", "infinite-ae,ease", "--seeds", "1", "--samples", "3"]
    assert main([*command, "--space", str(space), "--target", "0.01", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["budget"] == 5 and shown["sentence"].startswith("5 synthetic users are enough")
    made = Artefact.open(out, Kind.SWEEP)
    rows = made.table("trials.parquet").to_pylist()
    tested = [row for row in rows if row["status"] == "done" and row["chosen"]]
    expected = {
        (method, learner, budget): 1
        for method in ("distill-cf", "nystrom")
        for learner in ("infinite-ae", "ease")
        for budget in (5, 10)
    }
    expected |= {(ALL_USERS, learner, 120): 1 for learner in ("infinite-ae", "ease")}
    assert Counter((row["method"], row["learner"], row["budget"]) for row in tested) == expected
    for row in tested:
        assert all(0 <= row[f"{part} {name}"] <= 100 for part in ("validation", "test") for name in METRICS)
        assert row["seconds"] > 0 and row["bytes"] > 0
    others = [row for row in rows if row not in tested]
    assert others and all(row["test nDCG@10"] is None for row in others)  # test is for what was chosen
    temperatures = {row["temperature"] for row in tested if row["method"] == "distill-cf"}
    assert temperatures == {DistillConfig.for_budget(5).sampler.temperature}

    hopeless = [row for row in rows if row["status"] == "stopped"]
    # Who is stopped depends on who comes first to a rung: see `test_hopeless_trials_are_stopped`
    assert all(row["validation nDCG@10"] is not None for row in hopeless)

    again = ArtefactWriter(tmp_path / "summary", Kind.SUMMARY, purpose={})
    config = with_parameters(DistillConfig.for_budget(5), SHORT)
    published = Artefact.open(out / "summary", Kind.SUMMARY)
    assert published.manifest.fingerprint() == distill(dataset, again, config, ThreadPool()).manifest.fingerprint()
    assert any("tfevents" in name for name in made.manifest.files)
    assert {"report.html", "figures/quality.svg", "figures/quality.png"} <= made.manifest.files.keys()
    assert shown["sentence"].encode() in (out / "report.html").read_bytes()


@pytest.mark.parametrize("learner", [Learner.EASE, Learner.MF])
def test_learners_with_noise(learner: Learner, dataset: Dataset, cluster: Cluster, tmp_path: Path) -> None:
    """They learn from noisy users, chosen or all, and are judged by those without noise."""
    config = SweepConfig(budgets=(20,), methods=(Method.RANDOM_USERS,), learners=(learner,), noise=(0.0, 0.3), seeds=2)
    noisy = {
        (0.3, seed): perturb_dataset(
            dataset,
            ArtefactWriter(tmp_path / f"noisy-{seed}", Kind.DATASET, purpose={}),
            PerturbConfig(noise=0.3, seed=seed),
        )
        for seed in (0, 1)
    }
    bench = Bench(
        dataset=dataset,
        noisy=noisy,
        work=Location.of(tmp_path / "work"),
        solver=Solver.EXACT,
        search=paper_search(config.select),
        learners=config.learners,
    )
    rows = {
        (trial.method, trial.noise, trial.seed): bench.run(trial).rows[0]
        for trial in config.points({}, all_users=dataset.num_training_users)
    }
    assert {row["status"] for row in rows.values()} == {"done"}
    assert rows.keys() == {
        *((ALL_USERS, *of) for of in [(0.0, 0), (0.3, 0), (0.3, 1)]),
        *(("random-users", noise, seed) for noise in (0.0, 0.3) for seed in (0, 1)),
    }
    train = noisy[0.3, 1].training_matrix()
    row, writer = rows[ALL_USERS, 0.3, 1], ArtefactWriter(tmp_path / "model", Kind.MODEL, purpose={})
    if learner == Learner.EASE:
        model = fit_ease(noisy[0.3, 1], writer, EASEConfig(seed=1), train=train)
    else:
        model = fit_mf(noisy[0.3, 1], writer, MFConfig(seed=1), train=train)
    expected = evaluate(str(model.location), dataset, ThreadPool()).metrics
    assert {name: row[f"test {name}"] for name in METRICS} == {name: expected[name] for name in METRICS}
    assert row["interactions"] == train.nnz > rows[ALL_USERS, 0.0, 0]["interactions"] == dataset.training_matrix().nnz


def test_what_fails_is_reported_and_the_others_go_on(
    dataset: Dataset, cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Something else lies where a killed run of the same sweep would have left its summaries."""
    out, methods = tmp_path / "out", (Method.RANDOM_USERS, Method.HEAD_USERS)
    command = ["sweep", str(dataset.artefact.location), "--budgets", "5", "--seeds", "1", "--out", str(out)]
    command += ["--methods", ",".join(methods)]
    summaries = _unfinished(out, dataset, SweepConfig(budgets=(5,), seeds=1, methods=methods)) / "summaries"
    places = {method: summaries / f"{method}-5-seed-0" for method in methods}
    for place in places.values():
        place.write(b"not a summary")
    assert main(command) == 1
    assert_one_sentence(capsys, "Every trial failed, the first one so: ")
    assert not out.exists()

    places[Method.RANDOM_USERS].remove()
    assert main([*command, "--resume"]) == 0  # failures are tried again
    captured = capsys.readouterr()
    assert "head-users-5-seed-0 (infinite-ae) failed: " in captured.err and "is not a summary" in captured.err
    rows = Artefact.open(out, Kind.SWEEP).table("trials.parquet").to_pylist()
    status = {row["method"]: row["status"] for row in rows}
    assert status == {ALL_USERS: "done", "random-users": "done", "head-users": "failed"}


def _unfinished(out: Path, dataset: Dataset, config: SweepConfig) -> Location:
    """Return the folder in which a sweep from the command line with this config works, as if it had just begun."""
    purpose = {"dataset": dataset.manifest.fingerprint(), **config.described}
    return ArtefactWriter(out, Kind.SWEEP, purpose=purpose).work


def test_a_killed_sweep_goes_on(dataset: Dataset, cluster: Cluster, undisturbed: Artefact, tmp_path: Path) -> None:
    """With SIGKILL, in the middle: what had ended is not run again, and the result is that of an unbroken run."""
    out, space = tmp_path / "out", tmp_path / "space.yaml"
    space.write_text("\n".join(f"{name}: {value}" for name, value in SHORT.items()))
    command = ["sweep", str(dataset.artefact.location), "--out", str(out)]
    command += ["--budgets", "5", "--seeds", "1", "--space", str(space)]
    command += ["--methods", "distill-cf,random-users", "--noise", "0.2"]
    settings: dict[str, Any] = {"cwd": Path(__file__).parents[1], "env": os.environ | joining()}
    said = tmp_path / "stderr.txt"
    with said.open("w") as stderr:
        settings["stderr"] = stderr
        running = subprocess.Popen([sys.executable, "-m", "jobs", *command], start_new_session=True, **settings)
    ended = tmp_path / ".out.partial" / "_work" / "tested"
    while len(_outcomes(ended)) < 2:
        assert running.poll() is None, said.read_text()
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    known = _outcomes(ended)
    assert len(known) < 6 and not out.exists()
    assert main([*command, "--resume"]) == 0
    made = Artefact.open(out, Kind.SWEEP)
    seconds = {row["trial"]: row["seconds"] for row in made.table("trials.parquet").to_pylist()}
    assert len(seconds) == 6 and known.items() <= seconds.items()  # measured once, before the kill
    assert metrics_of_trials(made) == metrics_of_trials(undisturbed)
    assert recommended(made) == recommended(undisturbed)


def _outcomes(folder: Path) -> dict[str, float]:
    """Trial → seconds, of those that have ended."""
    rows = [json.loads(file.read_text())["rows"][0] for file in folder.glob("[!.]*.json")]
    return {row["trial"]: row["seconds"] for row in rows}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--budgets", ""], "There is no budget: name one at least"),
        (["--budgets", "10,5"], "The budgets must go up, they are 10,5 (--budgets)."),
        (["--budgets", "5,5"], "The budgets must go up, they are 5,5 (--budgets)."),
        (["--budgets", "5,many"], "--budgets 5,many is not a comma-separated list of whole numbers."),
        (["--budgets", "0,5"], "The budgets must be at least 1, the least is 0 (--budgets)."),
        (["--budgets", "5,121"], "the number of training users; the largest is 121 (--budgets)."),
        (["--methods", "magic"], "--methods: there is no magic; there are distill-cf, random-users"),
        (["--learners", "magic"], "--learners: there is no magic; there are infinite-ae, ease, mf."),
        (["--methods", ""], "There is no method: name one at least (--methods)."),
        (["--noise", ""], "--noise '' is not a number or a comma-separated list of numbers."),
        (["--noise", "0,0"], "A noise rate is named twice: name each once (--noise)."),
        (["--noise", "2"], "The noise rates must lie in 0 … 1, they are 2 (--noise)."),
        (["--seeds", "0"], "The number of seeds must be at least 1, it is 0 (--seeds)."),
        (["--target", "0"], "The target must be positive, such as 0.96, it is 0 (--target)."),
        (["--samples", "2", "--methods", "head-users"], "Samples are for distill-cf"),
        (["--memory-limit", "1MB"], "the memory limit is 0.00 GB"),
        (["--trial-cpus", "64"], "for a trial: lower one of them (--trial-cpus, --trial-gpus)."),
        (["--trial-gpus", "0.5"], "No node has 1 CPUs and 0.5 GPUs for a trial"),
        (["--select", "nDCG@20"], "nDCG@20 is not among the metrics of a sweep: HR@10, HR@100,"),
        (["--resume"], "There is no unfinished sweep to resume at"),
        (["--space", "nowhere.toml"], "There is no search space at nowhere.toml."),
    ],
)
def test_refusals(
    options: list[str],
    sentence: str,
    dataset: Dataset,
    cluster: Cluster,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    given = [] if "--budgets" in options else ["--budgets", "5"]
    assert main(["sweep", str(dataset.artefact.location), "--out", str(out), *given, *options]) == 2
    assert_one_sentence(capsys, sentence)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("temprature = 3", "there is no parameter temprature; there are temperature, draws"),
        ("temperature = 'hot'", "temperature must be a number, it is 'hot'."),
        ("draws = [10, 2.5]", "draws must be a whole number, it is 2.5."),
        ("drop = []", "drop is an empty list."),
        ("drop = {log = [0.5]}", "drop: log needs a list of two numbers."),
        ("drop = {log = [0.5, 0.1]}", "drop: log needs two numbers, the first less than the second"),
        ("drop = {normal = [0, 1]}", "drop must be a number, a list, or one range"),
        ("drop = 2", "The part to drop must lie between 0 and 1, it is 2 (--drop)."),
        ("depth = 0", "out of range"),
        ("draws = inf", "draws must be a whole number, it is inf."),
        ("drop = {uniform = [0.1, inf]}", "drop must be a number, it is inf."),
        ("drop = [0.2, 0.5]", "ranges or lists to draw from: take 2 samples or more (--space, --samples)."),
        ("= 3", "is not a search space"),
    ],
)
def test_bad_search_spaces(
    content: str, sentence: str, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "space.toml"
    file.write_text(content)
    command = ["sweep", str(dataset.artefact.location), "--out", str(tmp_path / "out"), "--budgets", "5"]
    assert main([*command, "--space", str(file)]) == 2
    said = assert_one_sentence(capsys, sentence)
    assert str(file) in said or "--drop" in said or "out of range" in said or "--samples" in said
    file.write_text("drop = 0.5")
    assert main([*command, "--space", str(file), "--methods", "head-users"]) == 2
    assert_one_sentence(capsys, "The space is for distill-cf, which is not among the methods (--space, --methods).")


def test_a_directory_that_exists_is_left_alone(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "note").write_text("mine")
    assert main(["sweep", str(dataset.artefact.location), "--out", str(tmp_path), "--budgets", "5"]) == 2
    assert_one_sentence(capsys, "exists: choose another place")
    assert (tmp_path / "note").read_text() == "mine"
