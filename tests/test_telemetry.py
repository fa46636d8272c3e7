"""A run tells machines its progress: Ray's metrics as Prometheus reads them, and JSON objects on stderr."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from infrec.jobs import logs
from infrec.jobs.cli import main
from infrec.jobs.logs import JsonLog
from infrec.pipeline.cluster import Cluster, Run
from infrec.pipeline.storage import Artefact, Kind
from tests.builders import taste_dataset
from tests.patience import PATIENCE_SECONDS
from tests.sentence import assert_one_sentence

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """`--log-format json` takes over what libraries log; here it has to give it back."""
    loggers = logging.getLogger(), logging.getLogger("ray")
    handlers = [list(logger.handlers) for logger in loggers]
    yield
    logging.captureWarnings(False)
    for logger, before in zip(loggers, handlers, strict=True):
        logger.handlers = before


def test_prometheus_finds_what_a_run_does(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps, loss, validation and success of a distillation, from the endpoint that Prometheus would scrape."""
    dataset = taste_dataset(tmp_path / "data", 60, 40, seed=0)
    began = time.time()
    command = ["distill", str(dataset.artefact.location), "--out", str(tmp_path / "summary"), "--budget", "10"]
    monkeypatch.setenv("INFREC_RUN_ID", "night-1")
    assert main([*command, "--steps", "6", "--validate-every", "3", "--json"]) == 0
    best = max(row["nDCG@10"] for row in json.loads(capsys.readouterr().out)["history"])

    tags = {"command": "distill", "run": "night-1"}
    of_this_run = ("last_success_timestamp_seconds", ("run", "night-1"))
    found = _until(_metrics, lambda found: of_this_run in {(name, label) for name, labels in found for label in labels})

    def value(name: str, **more: str) -> float:
        labels = (tags | more).items()
        (found_value,) = [found[key] for key in found if key[0] == name and labels <= dict(key[1]).items()]
        return found_value

    assert value("stage_done", stage="Steps") == value("stage_total", stage="Steps") == 6
    assert value("figure", stage="Steps", figure="loss") > 0
    assert value("figure", stage="Steps", figure="best nDCG@10") <= best
    assert began <= value("last_success_timestamp_seconds") <= time.time()


def test_a_failed_run_is_no_success(cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its stages are seen, its success is not; its id is not ASCII, of which Ray's tags are."""
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id,rating\n1,2,3\n4,5,1\n")
    options = ["ingest", str(log), "--out", str(tmp_path / "data"), "--threshold", "4"]
    assert main(["--run-id", "nacht-2-ä", *options]) == 2

    def of_this_run() -> set[str]:
        return {name for name, labels in _metrics() if ("run", "nacht-2-\\\\xe4") in labels}

    assert _until(of_this_run, lambda names: "stage_total" in names) == {"stage_done", "stage_total"}


def test_json_logs(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str], logging_as_before: None
) -> None:
    """An object a line on stderr, results on stdout as ever; the run's id in all lines, and in no artefact."""
    generate = ["generate", "--rows", "2000", "--users", "50", "--items", "20", "--out"]
    began = datetime.now(UTC) - timedelta(seconds=1)
    assert main(["--log-format", "json", "--run-id", "night-3", *generate, str(tmp_path / "log")]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"synthetic log {tmp_path / 'log'}")
    lines = [json.loads(line) for line in printed.err.splitlines()]
    assert {(line["run_id"], line["job"], line["level"]) for line in lines} == {("night-3", "generate", "info")}
    assert all(began <= datetime.fromisoformat(line["time"]) <= datetime.now(UTC) for line in lines)
    *stages, end = lines
    assert [(line["event"], line["stage"], line["total"]) for line in stages] == [
        ("progress", "generate rows", 2000)
    ] * len(stages)
    assert stages[0]["done"] == 0 and stages[-1]["done"] == 2000
    assert end["event"] == "end" and end["exit_code"] == 0 and end["seconds"] > 0

    assert main(["--log-format", "json", "--run-id", "night-4", *generate, str(tmp_path / "again")]) == 0
    first, again = (Artefact.open(str(tmp_path / name), Kind.LOG) for name in ("log", "again"))
    assert first.manifest.fingerprint() == again.manifest.fingerprint()


def test_progress_is_logged_at_a_rate_that_one_can_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, logging_as_before: None
) -> None:
    """100 units a second for 25 seconds: the first, one every ten seconds, the last; what is done is said once."""
    clock = iter(number / 100 for number in range(10_000))
    monkeypatch.setattr(logs, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with JsonLog(Run("fit", "night-5")).stages() as report:
        for step in range(2501):
            report("Steps", step, 2500, {"loss": 2.0} if step else "compiling")
        report("Steps", 2500, 2500)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["done"] for line in lines] == [0, 1000, 2000, 2500]
    assert lines[0]["detail"] == "compiling" and lines[1]["figures"] == {"loss": 2.0}


def test_errors_are_logged_as_objects(capsys: pytest.CaptureFixture[str], logging_as_before: None) -> None:
    def told(*arguments: str) -> list[dict[str, Any]]:
        assert main(["--log-format", "json", *arguments]) == 2
        printed = capsys.readouterr()
        assert not printed.out
        return [json.loads(line) for line in printed.err.splitlines()]

    error, end = told("fit", "nowhere", "--out", "model")
    assert (error["level"], error["event"], error["message"]) == (
        "error",
        "error",
        f"There is no dataset at {Path('nowhere').absolute()}.",
    )
    assert (end["level"], end["event"], end["exit_code"]) == ("error", "end", 2)
    assert re.fullmatch(r"fit-\d{8}-\d{6}-[0-9a-f]{6}", end["run_id"])
    error, _ = told("fit", "nowhere", "--out", "model", "--debug")
    assert "InputError: There is no dataset at" in error["traceback"]
    error, _ = told("fits")
    assert "No such command 'fits'" in error["message"]

    logging.getLogger("some.library").warning("There are %d things.", 2)
    (warning,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (warning["event"], warning["level"], warning["message"]) == ("log", "warning", "There are 2 things.")


def test_a_log_format_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--log-format", "xml", "plan", "data"]) == 2
    assert_one_sentence(capsys, "'xml' is not one of 'text', 'json'.")


def test_the_environment_says_it_as_well() -> None:
    """A container has it in its environment. This is the real stderr of a process."""
    run = subprocess.run(
        [sys.executable, "-m", "jobs", "plan", "nowhere"],
        cwd=REPOSITORY,
        env={**os.environ, "INFREC_LOG_FORMAT": "json", "INFREC_RUN_ID": "night-6"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2 and not run.stdout
    assert [json.loads(line)["run_id"] for line in run.stderr.splitlines()] == ["night-6"] * 2


def _metrics() -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Ours, of all nodes: name and labels → value."""
    found = {}
    for node in ray.nodes():
        place = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(place, timeout=10) as answer:
            text = answer.read().decode()
        for name, labels, value in re.findall(r"^ray_infrec_(\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
            found[name, frozenset(re.findall(r'(\w+)="([^"]*)"', labels))] = float(value)
    return found


def _until(ask: Callable[[], Any], right: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    answer: Any = None
    while time.monotonic() < deadline:
        with suppress(OSError):  # the agent is not up yet, or busy
            if right(answer := ask()):
                return answer
        time.sleep(0.2)
    raise AssertionError(f"it did not come to that: {answer}")
