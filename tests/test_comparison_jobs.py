"""`infrec distill --method …`: what it prints, and how it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infrec.jobs.cli import main
from infrec.pipeline.cluster import Cluster
from tests.builders import taste_dataset
from tests.sentence import assert_one_sentence


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("comparison") / "dataset"
    taste_dataset(out, 120, 60, seed=0)
    return str(out)


def test_a_summary_of_another_method(
    dataset: str, cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["distill", dataset, "--budget", "30", "--lambda", "0.5,5", "--method"]
    assert main([*command, "nystrom", "--out", str(tmp_path / "nystrom")]) == 0
    printed = capsys.readouterr().out
    assert "30 users (nystrom), λ=" in printed
    assert "step" not in printed
    assert main([*command, "head-users", "--out", str(tmp_path / "head"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [row["lambda"] for row in shown["history"]] == [0.5, 5]
    assert main(["evaluate", str(tmp_path / "nystrom"), str(tmp_path / "head"), "--data", dataset, "--json"]) == 0
    nystrom, head = json.loads(capsys.readouterr().out)["evaluations"]
    assert nystrom["metrics"]["nDCG@10"] > head["metrics"]["nDCG@10"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--drop", "0.2"], "--drop is for --method distill-cf, not for svp-cf."),
        (["--warm-start", "summary"], "--warm-start is for --method distill-cf, not for svp-cf."),
        (["--steps", "150"], "--steps is for --method distill-cf, not for svp-cf."),
        (["--budget", "121"], "The budget must lie in 1 … 120, the number of training users; it is 121 (--budget)."),
        (["--budget", "0"], "The budget must be at least 1, it is 0 (--budget)."),
        (["--lambda", "nan"], "--lambda must be finite and not negative, it is nan."),
        (["--budget", "30", "--memory-limit", "1MB"], "the memory limit is 0.00 GB: raise the limit"),
        (["--method", "luck"], "'random-interactions', 'svp-cf', 'nystrom'"),
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
    assert main(["distill", dataset, "--out", str(tmp_path / "summary"), "--method", "svp-cf", *options]) == 2
    assert_one_sentence(capsys, sentence)
    assert not list(tmp_path.iterdir())
