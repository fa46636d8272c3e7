"""`infrec submit`: run a job on a Ray cluster elsewhere, as if it ran here."""

from __future__ import annotations

from typing import Annotated

import typer

from infrec.jobs import console
from infrec.jobs.options import Debug, bytes_of
from infrec.pipeline.storage import InputError


def submit(
    context: typer.Context,
    command: Annotated[list[str], typer.Argument(metavar="JOB…", help="A job and its own options.")],
    address: Annotated[
        str,
        typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="The cluster's dashboard, such as http://HEAD:8265."),
    ],
    submission_id: Annotated[
        str | None, typer.Option(help="The job's id. A cluster takes each only once, which makes it a guard.")
    ] = None,
    working_dir: Annotated[
        str | None, typer.Option(help="Source tree to send and run. Default: the infrec installed on the cluster.")
    ] = None,
    pip: Annotated[str | None, typer.Option(help="File of requirements that the nodes install first.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="KEY=VALUE to keep with the job; repeatable.")] = None,
    job_cpus: Annotated[
        float, typer.Option(min=0, help="CPUs of the job's own process. Neither CPUs nor memory: on the head.")
    ] = 0.0,
    job_memory: Annotated[str | None, typer.Option(help="Memory of the job's own process, such as 48GB.")] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the id and leave the job to itself.")] = False,
    debug: Debug = False,
) -> int:
    """Run a job on a cluster: its output comes here as it is written, and its exit code is this command's."""
    from infrec.pipeline.cluster.submission import (  # it takes half a second, and the other jobs need not wait for it
        Submission,
        submit_job,
    )

    _check(context, command)
    submission = Submission(
        command=("--log-format", context.find_root().params["log_format"], *command),
        submission_id=submission_id,
        working_dir=working_dir,
        pip=pip,
        metadata=dict(map(_pair, metadata or ())),
        cpus=job_cpus,
        memory=bytes_of(job_memory, "--job-memory") or 0,
    )
    job = submit_job(address, submission)
    if no_wait:
        console.result(job.id)
        return 0
    console.note(f"Job {job.id} is submitted to {address}.")
    try:
        return job.follow(lambda lines: print(lines, end="", flush=True))
    except KeyboardInterrupt:
        stop = f"ray job stop --address {address} {job.id}"
        console.note(f"infrec: no longer following job {job.id}, which goes on; `{stop}` ends it.")
        raise SystemExit(console.INTERRUPTED) from None


def _check(context: typer.Context, command: list[str]) -> None:
    """Refuse here any command line that the job would refuse on the cluster, so that nothing is sent there."""
    infrec = context.find_root()
    jobs = infrec.command.commands  # type: ignore[attr-defined]
    others = [name for name in jobs if name != context.info_name]
    if command[0] not in others:
        raise InputError(f"There is no job {command[0]} to submit: choose one of {', '.join(others)}.")
    jobs[command[0]].make_context(command[0], command[1:], parent=infrec)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise InputError(f"--metadata {text} is not of the form KEY=VALUE.")
    return key, value
