"""Runs the examples of docs/ in the order of docs/README.md, in one directory.

`python -m tests.examples` puts what they print into the pages, for when that was meant to change.
"""

from __future__ import annotations

import doctest
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from infrec.jobs.cli import main
from infrec.pipeline.cluster import ray_session
from tests.commands import ROOT, commands, fences

INDEX = ROOT / "docs" / "README.md"


class Example(NamedTuple):
    page: Path
    command: str
    shown: str
    printed: str


def listed() -> list[Path]:
    """The pages in their order."""
    return [INDEX.parent / name for name in dict.fromkeys(re.findall(r"\((\w[\w-]*\.md)\)", INDEX.read_text()))]


def examples() -> Iterator[Example]:
    """Every command of `console` with what it prints here; what needs no comparison is done on the way."""
    names: dict[str, object] = {}
    for page in listed():
        for fence in fences(page):
            if fence.file:
                Path(fence.file).write_text(fence.body)
            if fence.language == "python":
                _try(fence.body, names, page.name)
            if fence.language == "console":
                for words, shown in commands(fence):
                    yield Example(page, " ".join(words), shown, _printed(words))


def _try(body: str, names: dict[str, object], page: str) -> None:
    """Python as in its console, with what it should answer."""
    example, said = doctest.DocTestParser().get_doctest(body, names, page, page, 0), StringIO()
    failed, _ = doctest.DocTestRunner().run(example, out=said.write, clear_globs=False)
    assert not failed, said.getvalue()
    names.update(example.globs)


def _printed(words: list[str]) -> str:
    """Return the output of a command, or its sentence if it refuses. The directory is called /home/you."""
    assert words[0] == "infrec"
    out, error = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(error):
        code = main(words[1:])
    assert code in (0, 2), error.getvalue()
    printed = out.getvalue() + (error.getvalue().splitlines()[-1] if code else "")
    return (
        "\n".join(line.rstrip() for line in printed.replace(str(Path.cwd()), "/home/you").splitlines()).strip("\n")
        + "\n"
    )


def write() -> None:
    """Into the pages."""
    with tempfile.TemporaryDirectory() as scratch, ray_session(cpus=2):
        os.chdir(scratch)
        written: Counter[Path] = Counter()
        for page, command, shown, printed in examples():
            text, end = page.read_text(), "\n" if shown.endswith("\n\n") else ""
            before = text.index(f"$ {command}\n{shown}", written[page]) + len(f"$ {command}\n")
            page.write_text(text[:before] + printed + end + text[before + len(shown) :])
            written[page] = before + len(printed + end)


if __name__ == "__main__":
    write()
