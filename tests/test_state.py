"""A state directory: which version is current, whatever happened to it, and what is not a state."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infrec.jobs.cli import main
from infrec.pipeline.data import Dataset
from infrec.pipeline.ingest import Format, find_files
from infrec.pipeline.nightly import ResummarizeConfig, State, roll_back
from infrec.pipeline.nightly import run as running
from infrec.pipeline.nightly.gate import Verdict
from infrec.pipeline.nightly.log_changes import Changes
from infrec.pipeline.nightly.state import Found
from infrec.pipeline.storage import LOCK, Artefact, Busy, InputError, Kind, hold
from infrec.pipeline.storage.lock import Owner
from tests.builders import taste_dataset, write_summary

OPTIONS = {"budget": 5, "seed": 0}


@pytest.fixture
def state(tmp_path: Path) -> State:
    """Versions 1, 2 and 3, each made from the one before."""
    state = State.at(str(tmp_path / "state"), new=True)
    state.agree_on(OPTIONS)
    for number in (1, 2, 3):
        _publish(state, f"{number - 1:06d}" if number > 1 else None)
    return state


def test_the_current_version(state: State) -> None:
    found = state.find()
    assert found.damage is None and found.version and found.version.name == "000003"
    assert found.version.parent == "000002" and found.version.dataset.num_users == 30
    assert state.next_name() == "000004"


@pytest.mark.parametrize(
    ("spoil", "damage"),
    [
        ("summary/users.parquet", "users.parquet is damaged: its checksum"),
        ("dataset/users-00001.parquet", "users-00001.parquet is damaged: its checksum"),
        ("dataset/manifest.json", "manifest.json is damaged"),
        ("version.json", "version.json is damaged"),
        ("plan.json", "plan.json is damaged"),
        ("../../current", "current is damaged"),
    ],
)
def test_a_damaged_version_gives_way_to_the_last_whole_one(state: State, spoil: str, damage: str) -> None:
    file = Path(state.folder("000003").path) / spoil
    body = bytearray(file.read_bytes())
    body[len(body) // 2] ^= 255
    file.write_bytes(body)
    found = state.find()
    assert found.damage and damage in found.damage
    # Without `current` nothing says that version 3 was not the one
    assert found.version and found.version.name == ("000003" if spoil.endswith("current") else "000002")


@pytest.mark.parametrize("content", [b"", b"3", b'{"version": 3}', b'{"vers'])
def test_a_damaged_pointer_counts_as_none(state: State, content: bytes) -> None:
    Path(state.root.path, "current").write_bytes(content)
    found = state.find()
    assert found.damage and "current is damaged: it " in found.damage
    assert found.version and found.version.name == "000003" and state.next_name() == "000004"
    state.agree_on(OPTIONS)
    with pytest.raises(InputError, match="made with other options"):
        state.agree_on({**OPTIONS, "budget": 6})
    with hold(state.root, "operator") as lock:
        with pytest.raises(InputError, match="say which it shall be"):
            roll_back(state, None, lock, "operator")
        assert roll_back(state, "000002", lock, "operator")["from"] is None
    assert state.pointed_at() == "000002"


def test_a_state_stands_for_its_current_version(state: State) -> None:
    address = str(state.root)
    with hold(state.root, "operator") as lock:
        for name in ("000002", "000003"):
            with lock.ours():
                state.switch(name)
            assert Dataset.open(address).artefact.location == state.folder(name) / "dataset"
            assert Artefact.open(address, Kind.MODEL, Kind.SUMMARY).location == state.folder(name) / "summary"
    with pytest.raises(InputError, match="is not a model: it has no manifest"):
        Artefact.open(address, Kind.MODEL)
    (state.root / "current").write(b"3")
    with pytest.raises(InputError, match="current is damaged: it names no version"):
        Dataset.open(address)


def test_a_glance_sees_what_is_not_there_and_reads_nothing(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.delattr(Artefact, "read")
        assert state.find(read=False) == Found(state.version("000003", read=False))
    (Path(state.folder("000003").path) / "summary" / "users.parquet").write_bytes(b"")
    found = state.find(read=False)
    assert found.damage and "users.parquet has 0 bytes" in found.damage
    assert found.version and found.version.name == "000002"


@pytest.mark.parametrize("worse", [None, "worse"])
def test_a_run_that_lost_its_lock_changes_nothing(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worse: str | None
) -> None:
    pq.write_table(pa.table({"user_id": [1], "item_id": [1]}), tmp_path / "log.parquet")
    config = ResummarizeConfig(budget=5, keep=1)
    previous = state.version("000003")

    def judge(*_: object, **__: object) -> Verdict:
        (state.root / LOCK).write(json.dumps(vars(Owner.this_process("thief", 600, "another"))).encode())
        return Verdict(None, None, None, worse)

    monkeypatch.setattr(running, "Pool", nullcontext)
    monkeypatch.setattr(running, "_dataset", lambda *_: running._Made(previous.dataset, None, 1, {}))
    monkeypatch.setattr(running, "_distill", lambda *_: None)
    monkeypatch.setattr(running, "_interactions", lambda _: 0)
    monkeypatch.setattr(running, "judge", judge)
    changes = Changes.between({}, find_files([str(tmp_path / "log.parquet")], Format.AUTO))
    turn = running.Turn(state, "000004", previous, changes, {}, False, {"parent": "000003", "files": {}})
    with hold(state.root, "slow") as lock, pytest.raises(Busy, match="run thief"):
        running.resummarize(turn, config, lock, "slow", memory=1 << 30)
    assert (state.folder("000004") / "plan.json").exists()
    assert state.pointed_at() == "000003" and state.find().version == previous
    assert state.folder("000001").exists() and not (state.root / "history").exists()


def test_none_is_whole(state: State) -> None:
    for number in (1, 2, 3):
        (Path(state.folder(f"{number:06d}").path) / "summary" / "users.parquet").unlink()
    found = state.find()
    assert found.version is None and found.damage and "000003/summary/users.parquet is missing" in found.damage
    assert state.next_name() == "000004"


def test_what_is_kept_leads_to_the_current_one(state: State) -> None:
    with hold(state.root, "operator") as lock:
        assert roll_back(state, None, lock, "operator")["version"] == "000002"
        assert state.pointed_at() == "000002"
        with pytest.raises(InputError, match="at version 000002 already"):
            roll_back(state, "000002", lock, "operator")
        with pytest.raises(InputError, match="000009 is not a whole version"):
            roll_back(state, "000009", lock, "operator")
        roll_back(state, "000001", lock, "operator")
        with pytest.raises(InputError, match="has no version before 000001"):
            roll_back(state, None, lock, "operator")
        assert state.prune(9) == ["000002", "000003"]  # which did not lead there
    assert state.next_name() == "000002"
    _publish(state, "000001")
    _publish(state, "000002")
    assert state.prune(2) == ["000001"]


def test_what_killed_runs_left(state: State) -> None:
    plan = {"parent": "000003", "files": {}}
    folder = state.begin("000004", plan)
    (folder / "half").write(b"of a summary")
    (state.folder("000007") / "dataset" / "half").write(b"of an older one")
    assert state.find().version == state.version("000003")
    assert (state.begin("000004", plan) / "half").exists()  # goes on with it
    assert not state.folder("000007").exists()
    assert not (state.begin("000004", {**plan, "files": {"more": {}}}) / "half").exists()


def test_a_damaged_row_of_the_history_is_left_out(state: State, capsys: pytest.CaptureFixture[str]) -> None:
    with hold(state.root, "operator") as lock:
        roll_back(state, None, lock, "operator")
    for number, content in enumerate((b"", b"{", b"[]", b"{}")):
        (state.root / "history" / f"0-{number}.json").write(content)
    (state.root / "current").write(b"")
    assert main(["history", str(state.root), "--json"]) == 0
    captured = capsys.readouterr()
    assert [row["decision"] for row in json.loads(captured.out)["history"]] == ["rolled back"]
    assert captured.err.count("is damaged and left out") == 4
    assert main(["history", str(state.root)]) == 0
    assert "no version is current" in capsys.readouterr().out


def test_other_options_are_refused(state: State) -> None:
    state.agree_on(OPTIONS)
    with pytest.raises(InputError, match=r"made with other options \(budget 5 there, 6 here\)"):
        state.agree_on({**OPTIONS, "budget": 6})


def test_options_may_change_until_something_is_published(tmp_path: Path) -> None:
    state = State.at(str(tmp_path / "state"), new=True)
    state.agree_on(OPTIONS)
    state.agree_on({**OPTIONS, "budget": 6})


def test_what_is_not_a_state(state: State, tmp_path: Path) -> None:
    other = tmp_path / "precious"
    with pytest.raises(InputError, match="There is no state of infrec resummarize at"):
        State.at(str(other))
    other.mkdir()
    (other / ".lock.0123").write_bytes(b"")  # of a killed first run
    State.at(str(other), new=True)
    (other / "photo.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="exists and is not a state"):
        State.at(str(other), new=True)
    with pytest.raises(InputError, match="exists and is not a state"):
        State.at(str(other / "photo.jpg"), new=True)
    Path(state.root.path, "state.json").write_text(json.dumps({"format": 2}))
    with pytest.raises(InputError, match="has state format 2, this infrec knows 1 only"):
        State.at(state.root.path)


def test_an_address_in_its_own_words(tmp_path: Path) -> None:
    state = State.at(str(tmp_path), new=True)
    assert state.address(state.folder("000001") / "summary") == f"{tmp_path}/versions/000001/summary"


def _publish(state: State, parent: str | None) -> tuple[Dataset, Artefact]:
    with hold(state.root, "test") as lock:
        folder = state.begin(state.next_name(), {"parent": parent, "files": {}})
        dataset = taste_dataset(Path(folder.path) / "dataset", 30, 40, seed=int(folder.name))
        rows = np.eye(5, 40, dtype=np.float32)
        summary = write_summary(Path(folder.path) / "summary", dataset, rows)
        with lock.ours():
            state.publish(folder, {"decision": "published", "quality": {}})
    return dataset, summary
