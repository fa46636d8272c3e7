"""SIGKILL in the middle of a resummarization: the current version stays whole, the next run ends as it would have."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infrec.pipeline import nightly as package
from infrec.pipeline.cluster import Cluster
from infrec.pipeline.nightly import ResummarizeConfig, State, clock, look
from infrec.pipeline.nightly import run as running
from infrec.pipeline.storage import hold
from tests.nightly import OPTIONS, Nights
from tests.nodes import by_itself
from tests.patience import PATIENCE_SECONDS

MOMENTS = {
    "before anything": "begin",
    "the dataset is grown": "_distill",
    "the summary is distilled": "judge",
    "it was judged": "publish",
    "it is whole, but not current": "switch",
    "it is current, but not in the history": "record",
}


@pytest.fixture(scope="module", autouse=True)
def one_day() -> Iterator[None]:
    """A plan is that of a day: a test that runs past midnight would have two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "midnight", _midnight)
        yield


@pytest.fixture(scope="module")
def begun(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """Night 0 is published, night 1 is there."""
    nights = Nights.begun(tmp_path_factory.mktemp("begun"))
    nights.write(1)
    return nights


@pytest.fixture(scope="module")
def undisturbed(begun: Nights, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """After a second run that nobody killed."""
    nights = _copy(begun, tmp_path_factory.mktemp("undisturbed"))
    assert nights.run() == 0
    return nights


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill(
    begun: Nights, undisturbed: Nights, tmp_path: Path, moment: str, capsys: pytest.CaptureFixture[str]
) -> None:
    nights = _copy(begun, tmp_path)
    run = by_itself(resummarize_and_die, json.dumps(nights.logs), str(nights.state), MOMENTS[moment])
    _, errors = run.communicate(timeout=PATIENCE_SECONDS)
    assert run.returncode == -signal.SIGKILL, errors
    found = State.at(str(nights.state)).find()
    assert found.damage is None and found.version
    published = moment.startswith("it is current")
    assert found.version.name == ("000002" if published else "000001")
    assert nights.run() == 0
    assert "which is dead, was taken over." in capsys.readouterr().err
    whole = State.at(str(nights.state)).find().version
    assert whole
    assert whole.dataset.manifest.fingerprint() == undisturbed.dataset().manifest.fingerprint()
    if not moment.startswith("it is whole"):  # then its number is spent, and with it goes the seed
        assert whole.name == "000002"
        assert whole.summary.manifest.fingerprint() == undisturbed.summary().manifest.fingerprint()
    assert [row["decision"] for row in nights.history(capsys)] == ["published", "published"]
    assert {path.name for path in nights.state.iterdir()} == {path.name for path in undisturbed.state.iterdir()}


def resummarize_and_die(logs: str, state: str, moment: str) -> None:
    """In a process without Ray, which so few rows do not need."""

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    clock.midnight = _midnight
    config = ResummarizeConfig(budget=int(OPTIONS[1]), steps=int(OPTIONS[3]))
    place = State.at(state)
    with hold(place.root, "doomed") as lock:
        turn = look(json.loads(logs), place, config, lock, "doomed", allow_rewrite=False, say=print)
        assert turn
        if moment == "record":
            package.history.record = die  # type: ignore[assignment]
        else:
            setattr(State if hasattr(State, moment) else running, moment, die)
        package.resummarize(turn, config, lock, "doomed", memory=1 << 34)


def _midnight(days: int) -> datetime:
    """Long after every row."""
    return datetime(2100, 1, 1, tzinfo=UTC) + timedelta(days=days)


def _copy(nights: Nights, folder: Path) -> Nights:
    """The same log, and a state to be spoiled."""
    copy = Nights(folder, nights.first)
    shutil.copytree(nights.state, copy.state)
    copy.log = nights.log
    return copy
