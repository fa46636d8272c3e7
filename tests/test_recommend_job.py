"""`infrec recommend`: raw histories, lists of items and seen items, against a plain ranking; refusals; kills."""

from __future__ import annotations

import json
import os
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from infrec.jobs import console
from infrec.jobs.cli import main
from infrec.pipeline.cluster import Cluster
from infrec.pipeline.data import ITEMS, Dataset, Offer
from infrec.pipeline.models import load_recommender
from infrec.pipeline.storage import Artefact, Kind
from tests import oracles
from tests.builders import write_dataset
from tests.killing import finished_parts
from tests.matrices import split_matrix, taste_matrix
from tests.models import checksums
from tests.nodes import by_itself
from tests.sentence import assert_one_sentence

ITEM_COUNT = 60


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("recommend") / "dataset"
    write_dataset(out, *split_matrix(taste_matrix(120, ITEM_COUNT, seed=0), seed=0))
    return str(out)


@pytest.fixture(scope="module")
def model(dataset: str, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = str(tmp_path_factory.mktemp("recommend") / "model")
    assert main(["fit", dataset, "--out", out, "--model", "ease", "--lambda", "100"]) == 0
    return out


def test_raw_histories_against_a_plain_ranking(
    model: str, cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows in any order and in two files, with duplicates, nulls and unknown items; users that no dataset knows."""
    rng = np.random.default_rng(0)
    known = [(f"user {user}", f"i{item}") for user, item in rng.integers((0, 0), (30, ITEM_COUNT), (400, 2))]
    everything = [("everything", f"i{item}") for item in range(ITEM_COUNT - 2)]
    unknown = [("user 1", "new"), ("user 1", "newer"), ("stranger", "new"), ("stranger", "i60"), (None, "i1")]
    rows = known + everything + unknown
    order = rng.permutation(len(rows))
    for part, chosen in enumerate((order[:300], order[300:])):
        who, what = zip(*(rows[row] for row in chosen), strict=True)
        pq.write_table(pa.table({"who": who, "what": what}), tmp_path / f"{part}.parquet")

    out, options = tmp_path / "out", ["--user", "who", "--item", "what", "--k", "5"]
    files = ["--histories", str(tmp_path / "0.parquet"), "--histories", str(tmp_path / "1.parquet")]
    assert main(["recommend", model, *files, *options, "--out", str(out), "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    histories: dict[str, set[str]] = {}
    for user, item in known + everything:
        histories.setdefault(user, set()).add(item)
    assert recommended(out) == plain_ranking(model, histories, k=5)
    assert len(recommended(out)["everything"]) == 2
    duplicates = len(known) - sum(len(items) for user, items in histories.items() if user != "everything")
    assert counts["users"] == len(histories) and counts["users_left_out"] == 1
    assert counts["dropped"] == {"without user": 1, "duplicates": duplicates, "of unknown items": 4}


@pytest.mark.parametrize("suffix", ["txt", "csv", "parquet"])
def test_what_is_allowed_denied_and_seen(
    dataset: str, model: str, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Allowed minus denied; users of whom fewer than k items are left get fewer rows."""
    allowed, denied = {f"i{item}" for item in range(0, 40, 2)}, {"i0", "i4", "i41"}
    lists = [
        *("--allow", write_list(tmp_path / f"allow.{suffix}", [*sorted(allowed), "gone", "gone"])),
        *("--deny", write_list(tmp_path / f"deny.{suffix}", [*sorted(denied), "never there"])),
    ]
    histories = histories_of(dataset)
    for extra, keep_seen in (([], False), (["--keep-seen"], True)):
        out = tmp_path / f"out-{keep_seen}"
        assert main(["recommend", model, "--data", dataset, "--k", "15", *lists, *extra, "--out", str(out)]) == 0
        assert "listed items that the model does not know: 2" in capsys.readouterr().out
        expected = plain_ranking(model, histories, k=15, offered=allowed - denied, keep_seen=keep_seen)
        assert recommended(out) == expected
        assert all(len(items) == 15 for items in expected.values()) == keep_seen


def test_listed_ids_may_have_64_bits(tmp_path: Path) -> None:
    largest = 2**64 - 1
    allowed = write_list(tmp_path / "allow.txt", [str(largest), "5"])
    offer = Offer.of(pa.array([7, largest, 8], pa.uint64()), allow=allowed, deny=None)
    assert offer.allowed is not None and offer.allowed.tolist() == [1] and offer.unknown == 1


def test_a_history_of_a_million_items(
    model: str, cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = pa.array([f"i{item}" for item in range(10, 1_000_010)])
    users = pa.array(["collector"]).take(pa.array(np.zeros(len(items), np.int64)))
    pq.write_table(pa.table({"user_id": users, "item_id": items}), tmp_path / "log.parquet")
    out = tmp_path / "out"
    assert main(["recommend", model, "--histories", str(tmp_path), "--k", "20", "--out", str(out)]) == 0
    assert "999,950 of unknown items" in capsys.readouterr().out
    seen = {f"i{item}" for item in range(10, ITEM_COUNT)}
    assert recommended(out) == plain_ranking(model, {"collector": seen}, k=20)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--k", "0"], "k must lie in 1 … 60, the number of items; it is 0 (--k)."),
        (["--k", "-1"], "k must lie in 1 … 60, the number of items; it is -1 (--k)."),
        (["--k", "1000000000"], "k must lie in 1 … 60, the number of items; it is 1,000,000,000 (--k)."),
        (["--data", "{dataset}"], "either --data or --histories."),
        (["--user", "customer"], "log.parquet has no column customer, it has: user_id, item_id, number (--user)."),
        (["--item", "number"], "The log's item ids (number) are int64, those of {model} are string."),
        (["--allow", "{lists}/strange.txt"], "The lists leave none of the model's 60 items to recommend (--allow)."),
        (["--allow", "{lists}/few.txt", "--deny", "{lists}/few.txt"], "items to recommend (--allow, --deny)."),
        (
            ["--deny", "{lists}/numbers.parquet"],
            "has item ids of type int64, the model's are string (--deny).",
        ),
        (["--deny", "{lists}/two.csv"], "two.csv must have one column, of item ids; it has: item, price."),
        (["--allow", "{lists}/two.parquet"], "two.parquet must have one column, of item ids; it has: item, price."),
        (["--allow", "{lists}/nothing.txt"], "There is no file at {lists}/nothing.txt (--allow)."),
        (["--allow", "{lists}/torn.parquet"], "torn.parquet is not a list of ids like the model's (string)"),
    ],
)
def test_refuses_in_one_sentence(
    dataset: str,
    model: str,
    tmp_path: Path,
    options: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lists, log, out = tmp_path / "lists", tmp_path / "log.parquet", tmp_path / "out"
    lists.mkdir()
    pq.write_table(pa.table({"user_id": ["a"], "item_id": ["i1"], "number": [1]}), log)
    for name, ids in {"strange.txt": ["x", "y"], "few.txt": ["i1", "i2"], "numbers.parquet": [1, 2]}.items():
        write_list(lists / name, ids)
    (lists / "two.csv").write_text("item,price\ni1,3\n")
    (lists / "torn.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"item": ["i1"], "price": [3]}), lists / "two.parquet")
    names = {"dataset": dataset, "model": model, "lists": lists}
    given = [option.format(**names) for option in options]
    assert main(["recommend", model, "--histories", str(log), "--out", str(out), "--k", "3", *given]) == 2
    assert_one_sentence(capsys, sentence.format(**names))
    assert {path.name for path in tmp_path.iterdir()} == {"lists", "log.parquet"}


def test_histories_or_a_dataset_must_be_given(
    dataset: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recommend", model, "--out", str(tmp_path / "out")]) == 2
    assert_one_sentence(capsys, "either --data or --histories.")
    assert main(["recommend", model, "--data", dataset, "--user", "who", "--out", str(tmp_path / "out")]) == 2
    assert_one_sentence(capsys, "--user and --item go with --histories")


def test_a_killed_run_goes_on_with_the_histories_that_it_gathered(model: str, tmp_path: Path) -> None:
    """The driver, with one CPU, gets SIGKILL after half of the parts; the run that goes on has two."""
    log, out, undisturbed = tmp_path / "log.parquet", tmp_path / "again", tmp_path / "out"
    users, items = np.random.default_rng(1).integers((0, 0), (5000, ITEM_COUNT), (20_000, 2)).T
    pq.write_table(pa.table({"user_id": users, "item_id": [f"i{item}" for item in items]}), log)
    command = ["recommend", model, "--histories", str(log), "--k", "10", "--out"]
    assert main([*command, str(undisturbed)]) == 0
    killed = by_itself(recommend_until_killed, model, str(log), str(out))
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    left = finished_parts(out)
    assert 2 <= len(left) < 5 and not out.exists()

    before = log.stat()
    log.write_bytes(bytes(before.st_size))  # who read it again would find nothing
    os.utime(log, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert main([*command, str(out)]) == 0
    assert {name: (out / name).stat().st_mtime_ns for name in left} == left
    again, whole = (Artefact.open(str(path), Kind.RECOMMENDATIONS) for path in (out, undisturbed))
    assert checksums(again) == checksums(whole) and len(checksums(whole)) == 5
    assert again.manifest.fingerprint() == whole.manifest.fingerprint()


def recommend_until_killed(model: str, log: str, out: str) -> None:
    """Recommend in a child process, which the test above ends half-way."""

    def kill(phase: str, done: int, total: int, detail: str = "") -> None:
        if phase == "Users" and done > total / 2:
            os.kill(os.getpid(), signal.SIGKILL)

    console.progress = lambda: nullcontext(kill)
    main(["recommend", model, "--histories", log, "--k", "10", "--out", out, "--cpus", "1"])


def plain_ranking(
    model: str, histories: dict[Any, set[str]], *, k: int, offered: set[str] | None = None, keep_seen: bool = False
) -> dict[Any, list[str]]:
    """user → item ids, best first."""
    artefact = Artefact.open(model, Kind.MODEL)
    ids = artefact.table(ITEMS)["item_id"].to_pylist()
    context = sp.csr_array(np.array([[item in seen for item in ids] for seen in histories.values()], np.float32))
    best: dict[Any, list[str]] = {}
    for (user, seen), scores in zip(histories.items(), load_recommender(artefact).scores(context), strict=True):
        order = [ids[item] for item in oracles.ranking(scores.tolist(), len(ids))]
        left = [item for item in order if (keep_seen or item not in seen) and (offered is None or item in offered)]
        best[user] = left[:k]
    return best


def recommended(out: Path) -> dict[Any, list[str]]:
    """user → item ids in the order of their ranks, from the files."""
    artefact = Artefact.open(str(out), Kind.RECOMMENDATIONS)
    lists: dict[Any, list[str]] = {}
    for name in sorted(artefact.manifest.files):
        for row in artefact.table(name).to_pylist():
            mine = lists.setdefault(row["user_id"], [])
            mine.append(row["item_id"])
            assert row["rank"] == len(mine)
    return lists


def histories_of(dataset: str) -> dict[Any, set[str]]:
    opened = Dataset.open(dataset)
    ids, all_users = opened.items()["item_id"].to_pylist(), opened.histories()
    matrix = (all_users.train + all_users.validation + all_users.test).toarray()
    return {
        user: {ids[item] for item in np.flatnonzero(row)}
        for user, row in zip(all_users.user_ids.to_pylist(), matrix, strict=True)
    }


def write_list(path: Path, ids: list[Any]) -> str:
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"item": ids}), path)
    else:
        header = ["item"] if path.suffix == ".csv" else []
        path.write_text("".join(f"{line}\n" for line in [*header, *ids]))
    return str(path)
