"""The commands of the README do what it says. Those for a cluster: tests/test_docs.py and tests/test_submit.py."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infrec.jobs.cli import main
from infrec.pipeline.cluster import Cluster
from infrec.pipeline.storage import Artefact, Kind
from tests.commands import INFREC, ROOT, commands, elsewhere, fences
from tests.matrices import taste_matrix

README = ROOT / "README.md"


def test_the_commands_for_ones_own_logs(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    all_words = [words for fence in fences(README) for words, _ in commands(fence)]
    ours = [words for words in all_words if words[0] == "infrec" and not elsewhere(words)]
    assert [words[1] for words in ours] == [
        *("ingest", "fit", "evaluate", "recommend"),
        *("distill", "evaluate", "recommend"),
        "sweep",
    ]
    users, items = taste_matrix(80, 150, seed=0).nonzero()
    monkeypatch.chdir(tmp_path)
    Path("logs").mkdir()
    pq.write_table(pa.table({"customer": users, "sku": [f"sku-{item}" for item in items]}), "logs/day-1.parquet")
    for _, *arguments in ours:
        fewer = ["--budget", "20", "--steps", "5"] if arguments[0] == "distill" else []
        if arguments[0] == "sweep":
            Path("space.toml").write_text("steps = 5")
            fewer = ["--budgets", "5,10", "--seeds", "1", "--methods", "distill-cf", "--space", "space.toml"]
        assert main([*arguments, *fewer]) == 0, capsys.readouterr().err
    for recommendations in ("recommendations", "from-summary"):
        assert Artefact.open(recommendations, Kind.RECOMMENDATIONS).manifest.counts["users"] == 80


@pytest.mark.parametrize("job", INFREC.commands)
def test_every_job_is_in_the_readme_and_has_help(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"`{job}" in README.read_text() or f"make {job}" in README.read_text()
    assert main([job, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: infrec {job}")


def test_without_arguments_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("Usage: infrec [OPTIONS] COMMAND") and not printed.err
