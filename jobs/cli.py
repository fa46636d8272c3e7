"""The `infrec` command: which jobs there are, and how each of them ends.

Exit codes: 0 done; 2 bad options or input, said in one sentence; 1 a failure on our side; 130 interrupted.
"""

from __future__ import annotations

import sys
import traceback

import typer

from jobs import demo, distill, evaluate, export, fit, generate, ingest, perturb, plan, recommend, submit, sweep
from jobs.console import note
from pipeline.errors import InputError

app = typer.Typer(
    name="infrec",
    help="Recommendation data, distilled: infinite-width autoencoders from Parquet logs, on Ray.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
for job in (
    demo.demo,
    generate.generate,
    ingest.ingest,
    perturb.perturb,
    plan.plan,
    fit.fit,
    distill.distill,
    evaluate.evaluate,
    recommend.recommend,
    export.export,
    sweep.sweep,
):
    app.command()(job)
# What follows the job that is submitted is that job's own
app.command(context_settings={"allow_interspersed_args": False})(submit.submit)

_INTERRUPTED = 130
# Typer carries its own copy of Click and exports only leaves of its errors: this is the root of the user's mistakes
_UsageError: type[Exception] = typer.BadParameter.__mro__[2]


def main(arguments: list[str] | None = None) -> int:
    """Run one job and return its exit code; `--debug` anywhere shows the traceback of an error."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    try:
        code = app(arguments, prog_name="infrec", standalone_mode=False) or 0
        if code == _INTERRUPTED:  # Typer's own answer to Ctrl-C
            note("infrec: interrupted; the same command goes on where this one stopped.")
        return int(code)
    except _UsageError as error:
        note(f"infrec: {error.format_message()}")  # type: ignore[attr-defined]  # a ClickException
        return 2
    except InputError as error:
        _explain(str(error), debug)
        return 2
    except Exception as error:
        first_line = str(error).split("\n", 1)[0]
        _explain(f"{type(error).__name__}: {first_line} (--debug shows where)", debug)
        return 1


def _explain(sentence: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    note(f"infrec: {sentence}")
