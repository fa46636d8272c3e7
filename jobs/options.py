"""Options that several jobs share, and checks of their values."""

from __future__ import annotations

import math
import re
from shlex import quote
from typing import Annotated

import typer

from infrec.jobs import console
from infrec.pipeline.cluster import Plan
from infrec.pipeline.storage import InputError

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is at --out.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]  # `cli.main` reads it
Address = Annotated[
    str | None, typer.Option(help="Address of a running Ray cluster. Default: $RAY_ADDRESS, else this machine.")
]
Cpus = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="CPUs of a Ray started here, or to ask an autoscaled cluster for. Default: all; small work takes no Ray.",
    ),
]
Gpus = Annotated[
    int | None,
    typer.Option(
        min=0, help="GPUs of a Ray started here, or to ask an autoscaled cluster for. Default: all there are."
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
MemoryLimit = Annotated[
    str | None,
    typer.Option(help="Memory that the job may plan with, such as 1.5GB. Default: what this machine has free."),
]

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


_OPTIONS = {"lambdas": "--lambda"}
"""The options of those settings that have another name on the command line."""


def option_of(setting: str) -> str:
    """Return the option that sets a field of a config."""
    return _OPTIONS.get(setting, f"--{setting.replace('_', '-')}")


def sentence_of(error: InputError) -> str:
    """Return the sentence of an error, with the options that would have to change."""
    sentence = str(error)
    if not error.settings:
        return sentence
    return f"{sentence.removesuffix('.')} ({', '.join(map(option_of, error.settings))})."


def bytes_of(text: str | None, option: str = "--memory-limit") -> int | None:
    """Return the bytes of a size such as `800MB`, `1.5GB`, `2GiB` or `1000000`. None stays None.

    Raises `InputError` where `text` is not a size.
    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", text.upper())
    if not match:
        raise InputError(f"{option} {quote(text)} is not a size: write it like 800MB, 1.5GB or 2GiB.")
    return int(float(match[1]) * _UNITS[match[2]])


def numbers_of(text: str, option: str) -> tuple[float, ...]:
    """Return the numbers of a comma-separated list. Raises `InputError` unless all are finite and not negative."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} {quote(text)} is not a number or a comma-separated list of numbers.") from None
    for value in values:
        if not math.isfinite(value) or value < 0:
            raise InputError(f"{option} must be finite and not negative, it is {value:g}.")
    return values


def require(plan: Plan, limit: int, disk: int | None = None) -> None:
    """Say how much memory and disk a job will need. Raises `DoesNotFit` if that is too much."""
    plan.require(limit, disk)
    console.note(f"{plan}.")
