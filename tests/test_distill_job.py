"""`infrec distill` from the command line: what it prints, how it refuses, and what it will not throw away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infrec.jobs.cli import main
from infrec.pipeline.cluster import Cluster
from infrec.pipeline.data import Dataset
from infrec.pipeline.distillation import DistillConfig
from infrec.pipeline.models import summary_matrix
from infrec.pipeline.storage import Artefact, InputError, Kind
from infrec.pipeline.study.space import with_parameters
from tests.builders import taste_dataset
from tests.sentence import assert_one_sentence

SHORT = ["--budget", "10", "--steps", "4", "--validate-every", "2", "--draws", "20"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("distill") / "dataset"
    taste_dataset(out, 120, 60, seed=0)
    return str(out)


@pytest.fixture(scope="module")
def summary(dataset: str, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = str(tmp_path_factory.mktemp("distill") / "summary")
    assert main(["distill", dataset, "--out", out, *SHORT]) == 0
    return out


def test_a_summary_stands_wherever_a_model_does(
    dataset: str, summary: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", summary, "--data", dataset, "--json"]) == 0
    (evaluation,) = json.loads(capsys.readouterr().out)["evaluations"]
    assert evaluation["metrics"]["HR@10"] > 0
    out = str(tmp_path / "recommendations")
    assert main(["recommend", summary, "--data", dataset, "--k", "5", "--out", out]) == 0
    assert Artefact.open(out, Kind.RECOMMENDATIONS).manifest.counts["rows"] == 5 * 120


def test_what_it_prints(
    dataset: str, summary: str, cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["distill", dataset, *SHORT, "--warm-start", summary]
    assert main([*command, "--out", str(tmp_path / "one")]) == 0
    captured = capsys.readouterr()
    assert "10 synthetic users of step" in captured.out and "nDCG@10" in captured.out
    assert "Warm start: 0 items of the dataset were new" in captured.err
    assert "Distilling 120 users into 10 needs" in captured.err
    assert main([*command, "--out", str(tmp_path / "two"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [row["step"] for row in shown["history"]][:2] == [2, 4]
    assert all(row["ridge"] > 0 for row in shown["history"])
    assert shown["counts"]["items_gone"] == 0


def test_few_items_have_few_draws(
    dataset: str, summary: str, cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the default of 200 draws, every weight would be cut off at 1, and no synthetic user would say anything."""
    assert main(["distill", dataset, "--out", str(tmp_path / "summary"), "--budget", "10", "--steps", "2"]) == 0
    items = Dataset.open(dataset).num_items
    said = f"Draws: {items // 2} in place of 200, half as many as there are items: weights end at 1."
    assert said in capsys.readouterr().err
    made = Artefact.open(str(tmp_path / "summary"), Kind.SUMMARY)
    assert made.manifest.config["options"]["sampler"]["draws"] == items // 2
    weights = summary_matrix(made)
    assert weights.mean() == pytest.approx(0.5, abs=0.1) and (weights < 1).mean() > 0.9


def test_the_paper_s_objective_is_there(dataset: str, cluster: Cluster, tmp_path: Path) -> None:
    paper = ["--objective", "official", "--user-weight", "0", "--sharpness", "1", "--schedule", "constant"]
    assert main(["distill", dataset, "--out", str(tmp_path / "summary"), *SHORT, *paper]) == 0
    options = Artefact.open(str(tmp_path / "summary"), Kind.SUMMARY).manifest.config["options"]
    assert options["objective"] == "official" and options["learning_rate"] == 0.15


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--budget", "0"], "The budget must be at least 1, it is 0 (--budget)."),
        (["--budget", "-5"], "The budget must be at least 1, it is -5 (--budget)."),
        (["--budget", "20001"], "A dense system has at most 20,000 rows, this one would have 20,001 (--budget)."),
        (["--budget", "121"], "The budget must lie in 1 … 120, the number of training users; it is 121 (--budget)."),
        (["--lambda", "-1"], "--lambda must be finite and not negative, it is -1."),
        (["--lambda", "nan"], "--lambda must be finite and not negative, it is nan."),
        (["--temperature", "0.1"], "the temperature must be at least 0.25, it is 0.1."),
        (["--draws", "0"], "draws and groups must be at least 1, they are 0 and 4."),
        (["--learning-rate", "0"], "The learning rate must be positive and finite, it is 0 (--learning-rate)."),
        (["--learning-rate", "inf"], "The learning rate must be positive and finite, it is inf (--learning-rate)."),
        (["--drop", "1"], "The part to drop must lie between 0 and 1, it is 1 (--drop)."),
        (
            ["--label-drop", "1"],
            "The part to drop for labels must be at least 0 and below 1, it is 1 (--label-drop).",
        ),
        (["--label-draws", "0"], "The number of draws of a user must be at least 1, it is 0 (--label-draws)."),
        (
            ["--label-user-weight", "2"],
            "The user weight of labels must lie in 0 … 1, it is 2 (--label-user-weight).",
        ),
        (["--label-rank", "0"], "The rank of the labels must be at least 1, it is 0 (--label-rank)."),
        (["--label-agreement", "2"], "The agreement of the labels must lie in 0 … 1, it is 2 (--label-agreement)."),
        (["--weight-step", "0"], "The step of the weights must be positive and finite, it is 0 (--weight-step)."),
        (["--weighted-items", "0"], "The number of weighted items must be at least 1, it is 0 (--weighted-items)."),
        (["--start-from-groups", "0"], "The number of users in a group must be at least 1, it is 0"),
        (["--select", "luck"], "luck is not a metric"),
        (["--warm-start", "nowhere"], "There is no summary at"),
        (["--budget", "10", "--memory-limit", "1MB"], "the memory limit is 0.00 GB"),
    ],
)
def test_it_refuses_in_one_sentence(
    dataset: str,
    cluster: Cluster,
    tmp_path: Path,
    options: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["distill", dataset, "--out", str(tmp_path / "summary"), *options]) == 2
    assert_one_sentence(capsys, sentence)
    assert list(tmp_path.iterdir()) == []


def test_warm_starts_that_do_not_fit(
    dataset: str, summary: str, cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["distill", dataset, "--out", str(tmp_path / "new"), "--steps", "2"]
    assert main([*command, "--budget", "11", "--warm-start", summary]) == 2
    assert f"{summary} has a budget of 10, the new one has 11 (--warm-start, --budget)." in capsys.readouterr().err
    chosen = str(tmp_path / "chosen")
    assert main(["distill", dataset, "--out", chosen, "--budget", "10", "--method", "head-users"]) == 0
    capsys.readouterr()
    assert main([*command, "--budget", "10", "--warm-start", chosen]) == 2
    assert "is no summary to start from: the method head-users made it (--warm-start)." in capsys.readouterr().err


def test_the_checkpoint_of_another_run_is_not_thrown_away(
    dataset: str, cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that diverged keeps its checkpoint; other options are refused there, with the difference."""
    command = ["distill", dataset, "--out", str(tmp_path / "summary"), *SHORT, "--schedule", "constant"]
    command += ["--checkpoint-every", "1", "--learning-rate"]
    assert main([*command, "3e38"]) == 2
    assert "is not finite at step" in capsys.readouterr().err
    assert main([*command, "3e38", "--memory-limit", "1MB"]) == 2  # which tomorrow may be more
    capsys.readouterr()
    checkpoint = tmp_path / ".summary.partial" / "_work" / "checkpoint.npz"
    before = checkpoint.read_bytes()
    assert main([*command, "0.05"]) == 2
    refusal = capsys.readouterr().err
    assert "learning_rate (3e+38 there, 0.05 here)" in refusal and "--overwrite" in refusal
    assert checkpoint.read_bytes() == before
    assert main([*command, "0.05", "--overwrite"]) == 0
    assert Artefact.open(str(tmp_path / "summary"), Kind.SUMMARY).manifest.counts["steps"] == 4
    assert not checkpoint.exists()


def test_a_summary_of_other_items_is_refused(
    summary: str, cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taste_dataset(tmp_path / "other", 40, 50, seed=1)
    assert main(["evaluate", summary, "--data", str(tmp_path / "other")]) == 2
    assert "knows other items" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"budget": 0}, "The budget must be at least 1, it is 0"),
        ({"learning_rate": float("nan")}, "The learning rate must be positive and finite"),
        ({"drop": 1.0}, "The part to drop must lie between 0 and 1"),
        ({"user_weight": -0.5}, "The user weight must lie in"),
        ({"cardinality": float("inf")}, "The cardinality must be finite"),
        ({"lambdas": (-1.0,)}, "λ must be finite and not negative"),
        ({"select": "nDCG@11"}, "nDCG@11 is not a metric"),
        ({"parts": 0}, "The number of parts must be at least 1"),
        ({"checkpoint_every": 0}, "The number of steps between checkpoints must be at least 1"),
    ],
)
def test_a_config_refuses_what_makes_no_sense(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DistillConfig(**wrong)  # type: ignore[arg-type]


def test_given_steps_have_no_restarts() -> None:
    """Whoever says how many steps there are gets so many; the best settings of a small budget begin anew."""
    assert DistillConfig.for_budget(10).restarts > DistillConfig.for_budget(500).restarts == 0
    assert DistillConfig.for_budget(10, steps=40).restarts == 0
    assert DistillConfig.for_budget(10, steps=40, restarts=2).restarts == 2
    assert with_parameters(DistillConfig.for_budget(10), {"steps": 40}).restarts == 0
