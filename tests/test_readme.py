"""The commands of the README do what it says."""

from __future__ import annotations

import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer.main

from jobs.cli import app, main
from pipeline.artefact import Artefact, Kind
from pipeline.session import Cluster
from tests.builders import taste_matrix

README = Path(__file__).parents[1] / "README.md"


def test_the_commands_for_ones_own_logs(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = README.read_text().split("```")[1::2]
    commands = [line for block in blocks for line in block.splitlines() if line.startswith("infrec ")]
    commands = [command for command in commands if "submit" not in command]  # tests/test_submit.py
    assert [command.split()[1] for command in commands] == [
        *("ingest", "fit", "evaluate", "recommend"),
        *("distill", "evaluate", "recommend"),
        "sweep",
    ]
    users, items = taste_matrix(80, 150, seed=0).nonzero()
    monkeypatch.chdir(tmp_path)
    Path("logs").mkdir()
    pq.write_table(pa.table({"customer": users, "sku": [f"sku-{item}" for item in items]}), "logs/day-1.parquet")
    for command in commands:
        fewer = ["--budget", "20", "--steps", "5"] if "--budget 500" in command else []
        if command.startswith("infrec sweep"):
            Path("space.toml").write_text("steps = 5")
            fewer = ["--budgets", "5,10", "--seeds", "1", "--methods", "distill-cf", "--space", "space.toml"]
        assert main([*shlex.split(command)[1:], *fewer]) == 0, capsys.readouterr().err
    for recommendations in ("recommendations", "from-summary"):
        assert Artefact.open(recommendations, Kind.RECOMMENDATIONS).manifest.counts["users"] == 80


@pytest.mark.parametrize("job", typer.main.get_command(app).commands)
def test_every_job_is_in_the_readme_and_has_help(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"`{job}" in README.read_text() or f"make {job}" in README.read_text()
    assert main([job, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: infrec {job}")
