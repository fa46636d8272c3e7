"""A log that grows night by night, and a state of `infrec resummarize` that follows it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infrec.jobs.cli import main
from infrec.pipeline.data import Dataset
from infrec.pipeline.storage import Artefact, Kind

USERS, GENRES, ITEMS_OF_A_GENRE, OF_A_USER = 300, 6, 100, 24
OPTIONS = ("--budget", "40", "--steps", "24", "--tolerance", "0.5")
"""With so few users and steps, it is chance which summary is better by a few percent."""
NOW = int(datetime.now(UTC).timestamp())


class Nights:
    """Night 0 is half of the log and lies in `first`; those after it are an eighth each, beside the state."""

    def __init__(self, folder: Path, first: Path) -> None:
        self.first, self.log, self.state = first, folder / "log", folder / "state"
        # A user likes one genre: shuffled items are nothing like it
        random = np.random.default_rng(0)
        users = np.repeat(np.arange(USERS), OF_A_USER)
        popularity = 1 / np.arange(3, ITEMS_OF_A_GENRE + 3)
        popularity /= popularity.sum()
        liked = [random.choice(ITEMS_OF_A_GENRE, OF_A_USER, replace=False, p=popularity) for _ in range(USERS)]
        items = users % GENRES * ITEMS_OF_A_GENRE + np.concatenate(liked)
        rows = random.permutation(np.stack([users, items], axis=1))
        self._parts = np.split(rows, [len(rows) * eighths // 8 for eighths in (4, 5, 6, 7)])

    @classmethod
    def begun(cls, folder: Path) -> Nights:
        """After the first run."""
        nights = cls(folder, folder / "first.parquet")
        pq.write_table(nights.rows(0), nights.first)
        assert nights.run() == 0
        return nights

    def rows(self, night: int) -> pa.Table:
        users, items = self._parts[night].T
        return pa.table({"user_id": users, "item_id": items, "timestamp": [NOW - 86_400 * (10 - night)] * len(users)})

    def write(self, night: int, table: pa.Table | None = None, *, name: str | None = None) -> Path:
        path = self.log / (name or f"night-{night}.parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(self.rows(night) if table is None else table, path)
        return path

    @property
    def logs(self) -> list[str]:
        return [str(self.first), *([str(self.log)] if self.log.exists() else [])]

    @property
    def command(self) -> list[str]:
        given = [word for log in self.logs for word in ("--logs", log)]
        return ["resummarize", *given, "--state", str(self.state), *OPTIONS]

    def run(self, *options: str) -> int:
        return main([*self.command, *options])

    @property
    def current(self) -> str:
        version: str = json.loads((self.state / "current").read_text())["version"]
        return version

    @property
    def versions(self) -> list[str]:
        return sorted(path.name for path in (self.state / "versions").iterdir())

    def dataset(self) -> Dataset:
        return Dataset.open(str(self.state / "versions" / self.current / "dataset"))

    def summary(self) -> Artefact:
        return Artefact.open(str(self.state / "versions" / self.current / "summary"), Kind.SUMMARY)

    def history(self, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert main(["history", str(self.state), "--json"]) == 0
        rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["history"]
        return rows
