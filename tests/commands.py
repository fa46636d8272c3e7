"""The commands in README.md and docs/: where they stand, and whether the programs that they name would take them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ray.scripts.scripts
import typer.main

from infrec.jobs.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
INFREC: Any = typer.main.get_command(app)
_PROGRAMS = {"infrec": INFREC, "ray": ray.scripts.scripts.cli}


class Fence(NamedTuple):
    """A block of a page. Of `console` it has commands after $ and what they print, of `sh` commands only."""

    language: str
    file: str
    """The name under which an example needs it, if any."""
    body: str


def fences(page: Path) -> list[Fence]:
    return [Fence(*found) for found in re.findall(r"^```(\w*) ?(\S*)\n(.*?)^```$", page.read_text(), re.M | re.S)]


def commands(fence: Fence) -> Iterator[tuple[list[str], str]]:
    """The words of every command, and what the page says that it prints."""
    body = fence.body.replace("\\\n", " ")
    match fence.language:
        case "console":
            for example in re.split(r"^\$ ", body, flags=re.M)[1:]:
                line, _, printed = example.partition("\n")
                yield shlex.split(line), printed
        case "sh":
            for line in re.split(r"\n|&&", body):
                if words := shlex.split(line, comments=True):
                    yield words, ""
        case "crontab":
            for line in body.splitlines():
                for command in line.split(maxsplit=5)[5].replace(r"\%", "%").split("&&"):
                    yield shlex.split(command.replace("$(date +%F)", "2026-01-31")), ""


def spans(page: Path) -> Iterator[str]:
    """Code in the middle of a sentence or a table."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    yield from re.findall(r"`([^`]+)`", prose)


def elsewhere(words: list[str]) -> bool:
    """Return whether a command wants a cluster or a store that tests do not have."""
    return words[:2] == ["infrec", "submit"] or any(word.startswith(("s3://", "gs://")) for word in words)


def accepted(words: list[str]) -> str:
    """The job that a command of infrec names, once that job has taken all its options."""
    words = words[1:] if words[0] == "infrec" else words[words.index("infrec.jobs") + 1 :]
    job = INFREC.commands[words[0]]
    taken = job.make_context(words[0], words[1:])
    if words[0] == "submit":
        accepted(["infrec", *taken.params["command"]])
    return words[0]


def check(words: list[str]) -> None:
    """Fail if a program has no such command or option, or a file is not there. JOB and … stand for any words."""
    program, *arguments = words
    if program == "make":
        assert all(re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M) for target in arguments), words
    if program in _PROGRAMS:
        command = _PROGRAMS[program]
        left = iter(arguments)
        for name in left:
            if name.startswith("-"):
                next(left, None)  # its value
            elif name in ("JOB", "…") or not hasattr(command, "commands"):
                break
            else:
                assert name in command.commands, words
                command = command.commands[name]
        options = {option for one in (_PROGRAMS[program], command) for param in one.params for option in param.opts}
        assert {word for word in arguments if re.match(r"--\w", word)} <= options, words
    if program in ("ray", "kubectl", "docker", "pip"):
        files = [word for word in arguments if re.search(r"\.(ya?ml|txt)$|/", word)]
        assert all((ROOT / file).exists() for file in files), words
