"""Every command of README.md and docs/ is run, or checked where it wants a cluster; examples print what the pages show.

The examples of docs/ are run in the order of the list in docs/README.md, in one directory. Those of the README have a
log of their own: tests/test_readme.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from infrec.pipeline.cluster import Cluster
from tests.commands import INFREC, PAGES, accepted, check, commands, elsewhere, fences, spans
from tests.examples import examples, listed
from tests.tolerances import ANOTHER_PROCESSOR

_LANGUAGES = {"console", "sh", "crontab", "python", "toml", "json", "text"}
_MEASURED = re.compile(
    r"(?<=residual )\S+|\d[\d.,]*(?= (?:s|min|h)\b)|(?<=^ seconds)\s+\d\S*|(?<=^ rows a second)\s+\d\S*|─+",
    re.MULTILINE,
)
"""Times, which are never the same, and a table's rule, which is as wide as they are."""
_METRIC = re.compile(r"(\d+\.\d+)")
"""A number with a point, whatever stands around it."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_not_run_would_be_accepted(page: Path) -> None:
    for fence in fences(page):
        assert fence.language in _LANGUAGES, f"{page}: {fence.body}"
        for words, _ in commands(fence) if fence.language != "console" else ():
            if elsewhere(words):
                assert accepted(words)
            else:
                check(words)
    known = {option for job in [INFREC, *INFREC.commands.values()] for param in job.params for option in param.opts}
    for span in spans(page):
        words = span.split()
        if words[0] in ("infrec", "make", "ray", "kubectl", "pip"):
            check(words)
        elif words[0].startswith("--") or words[0] in INFREC.commands:
            assert {word for word in words if re.match(r"--\w", word)} <= known | {"--help"}, f"{page}: {span}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), target
        headings = (
            [line.lstrip("# ").lower() for line in file.read_text().splitlines() if line.startswith("#")]
            if anchor
            else []
        )
        assert not anchor or anchor in {re.sub(r"[^\w-]", "", line.replace(" ", "-")) for line in headings}, anchor


def test_every_job_has_a_page_and_every_page_is_in_the_index() -> None:
    names = {page.name for page in listed()}
    assert names == {page.name for page in PAGES} - {"README.md"}
    assert {f"{job}.md" for job in INFREC.commands} - {"demo.md"} <= names


def test_examples_print_what_the_pages_show(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a change of what they print, `python -m tests.examples` writes it into the pages."""
    monkeypatch.chdir(tmp_path)
    run = 0
    for page, command, shown, printed in examples():
        _assert_same(shown, printed, f"{page.name}: {command}")
        run += 1
    assert run >= 30


def _assert_same(shown: str, printed: str, where: str) -> None:
    ours, theirs = _words(shown), _words(printed)
    assert len(ours) == len(theirs) and all(map(_same, ours, theirs)), f"{where} prints\n{printed}"


def _same(one: str, other: str) -> bool:
    """Metrics may differ as on another kind of processor. Counts, which have no point, may not."""
    parts, others = _METRIC.split(one), _METRIC.split(other)
    if len(parts) != 3 or len(others) != 3:
        return one == other
    alike = float(parts[1]) == pytest.approx(float(others[1]), rel=ANOTHER_PROCESSOR)
    return alike and parts[::2] == others[::2]


def _words(text: str) -> list[str]:
    """Without times: a last column of seconds, and what `_MEASURED` finds."""
    blocks = re.split(r"\n\s*\n", text)
    untimed = (
        re.sub(r"\S+ *$", "", block, flags=re.M) if re.search(r" seconds *\n", block) else block for block in blocks
    )
    return _MEASURED.sub(" ", "\n\n".join(untimed)).split()


def test_other_words_or_counts_are_not_the_same() -> None:
    table = " users   nDCG@10   seconds\n ───────────────\n 482       33.12       1.4\n\nλ=5 (32.90 before) (1.9 s)\n"
    elsewhere = table
    for one, other in (
        ("33.12", "33.15"),
        ("(32.90", "(32.87"),
        ("1.4", "12.5"),
        ("1.9 s", "2.0 s"),
        ("──\n", "───\n"),
    ):
        elsewhere = elsewhere.replace(one, other)
    _assert_same(table, elsewhere, "")
    for one, other in (
        ("482", "481"),
        ("33.12", "35.12"),
        ("λ=5", "λ=6"),
        ("users", "items"),
        ("(32.90", "(34.90"),
        ("(32.90", "32.90"),
    ):
        with pytest.raises(AssertionError, match="prints"):
            _assert_same(table, table.replace(one, other), "it")
