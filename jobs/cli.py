"""The `infrec` command: which jobs there are, and how each of them ends.

Exit codes: 0, the job is done; 2, options or input are bad, as one sentence says; 3, the old summary is kept, as the
new one is worse; 4, another run is at work on the same state; 1, infrec itself failed; 130, the user interrupted it.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from infrec.jobs import console
from infrec.jobs.logs import LogFormat
from infrec.jobs.options import sentence_of
from infrec.pipeline.cluster import Run
from infrec.pipeline.storage import InputError

JOBS = (
    "demo",
    "generate",
    "ingest",
    "perturb",
    "plan",
    "fit",
    "distill",
    "evaluate",
    "recommend",
    "export",
    "sweep",
    "resummarize",
    "rollback",
    "history",
    "submit",
)
"""The names of the jobs. Each job is the function of that name in the module of that name."""


class _Commands(Mapping[str, Any]):
    """The jobs by name. Each is imported when it is asked for, so none waits for what others import, such as Tune."""

    def __getitem__(self, name: str) -> Any:
        if name not in JOBS:
            raise KeyError(name)
        job = typer.Typer(add_completion=False, rich_markup_mode=None)
        # All that follows the name of a submitted job belongs to that job
        job.command(context_settings={"allow_interspersed_args": name != "submit"})(
            getattr(import_module(f"infrec.jobs.{name}"), name)
        )
        return typer.main.get_command(job)

    def __iter__(self) -> Iterator[str]:
        return iter(JOBS)

    def __len__(self) -> int:
        return len(JOBS)


class _Group(TyperGroup):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Commands()  # type: ignore[assignment]  # which nothing adds to


app = typer.Typer(name="infrec", cls=_Group, add_completion=False, rich_markup_mode=None)


def _begin(context: typer.Context, log_format: LogFormat) -> LogFormat:
    """Start the log before anything can go wrong, such as the name of a job that does not exist."""
    console.begin(Run.of("infrec"), log_format)
    return log_format


@app.callback()
def infrec(
    context: typer.Context,
    log_format: Annotated[
        LogFormat,
        typer.Option(callback=_begin, envvar="INFREC_LOG_FORMAT", help="What comes on stderr: json is for machines."),
    ] = LogFormat.TEXT,
    run_id: Annotated[
        str | None,
        typer.Option(
            envvar="INFREC_RUN_ID",
            help="What logs and metrics know the run by. Default: its submission id, or one that is made up.",
        ),
    ] = None,
) -> None:
    """Recommendation data, distilled: infinite-width autoencoders from Parquet logs, on Ray."""
    console.begin(Run.of(context.invoked_subcommand or "infrec", run_id), log_format)


# Typer has its own copy of Click, and exports only the most specific of its errors. This is the base class of all those
# that the user causes
_UsageError: type[Exception] = typer.BadParameter.__mro__[2]


def main(arguments: list[str] | None = None) -> int:
    """Run one job and return its exit code. With `--debug` anywhere, the traceback of an error is shown."""
    arguments = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    console.begin(Run.of("infrec"))
    return console.ended(_exit_code(arguments, debug="--debug" in arguments))


def _exit_code(arguments: list[str], *, debug: bool) -> int:
    def explain(sentence: str) -> None:
        console.error(sentence, traceback.format_exc() if debug else "")

    try:
        code = int(app(arguments, prog_name="infrec", standalone_mode=False) or 0)
        if code == console.INTERRUPTED:  # Typer gives this code after Ctrl-C
            console.error("interrupted; the same command goes on where this one stopped.")
        return code
    except SystemExit as error:  # the job has already said everything
        return int(error.code or 0)
    except _UsageError as error:
        console.error(error.format_message())  # type: ignore[attr-defined]  # a ClickException
        return 2
    except InputError as error:
        explain(sentence_of(error))
        return error.exit_code
    except Exception as error:
        first_line = str(error).split("\n", 1)[0]
        explain(f"{type(error).__name__}: {first_line} (--debug shows where)")
        return 1
