"""A job on a cluster elsewhere. It is sent to Ray's job server there, and followed until it has an exit code."""

from __future__ import annotations

import asyncio
import re
import shlex
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from infrec.pipeline.cluster.sessions import environment
from infrec.pipeline.storage import InputError

_POLL_SECONDS = 1.0
_PATIENCE_SECONDS = 120.0
"""The time for which a cluster may be silent: its head may be restarted, or a proxy before it."""
_OF_THE_CLUSTER = (RuntimeError, TimeoutError, aiohttp.ClientError, requests.RequestException)
"""What Ray's client raises where the cluster does not answer, or says no."""
_PASSES = re.compile(r"status code 50[234]|No available agent|WebSocket")
"""The words of those `RuntimeError`s after which it is worth asking again."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One `infrec` command line for a cluster, with the environment and the resources that it needs there."""

    command: tuple[str, ...]
    """The job and its options, as they stand after `infrec`."""
    submission_id: str | None = None
    """The id of the job. A cluster takes an id once, and refuses it a second time. None: one is made up."""
    working_dir: str | None = None
    """The source tree to send and run, without what its .gitignore and .rayignore name. None: the cluster's infrec."""
    pip: str | None = None
    """A file of requirements that Ray installs before the job."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    cpus: float = 0.0
    """CPUs for the job's own process, the driver. With 0 CPUs and no memory it runs on the head node."""
    memory: int = 0
    """Bytes of memory for the driver."""

    def runtime_environment(self) -> dict[str, Any]:
        """Return the runtime environment that Ray sets up for the job. Raises `InputError` if a path is not there."""
        if self.working_dir is not None and not Path(self.working_dir).is_dir():
            raise InputError(f"The working directory {self.working_dir} is not a directory.", "working_dir")
        if self.pip is not None and not Path(self.pip).is_file():
            raise InputError(f"{self.pip} is not a file of requirements.", "pip")
        asked = {"working_dir": self.working_dir, "pip": self.pip}
        return {name: value for name, value in asked.items() if value is not None}


class SubmittedJob:
    """A job that the cluster has taken. It goes on whether or not anyone follows it."""

    def __init__(self, client: JobSubmissionClient, submission_id: str) -> None:
        self.id = submission_id
        self._client = client

    def follow(self, show: Callable[[str], None]) -> int:
        """Pass the job's output to `show` as it comes, and return the job's exit code when it has ended.

        A connection that ends before the job is made anew. Raises `RuntimeError` if the job ended without an exit code:
        it was stopped, its environment could not be set up, or its node was lost. Raises `ConnectionError` if the
        cluster is silent for two minutes.
        """
        heard, shown = time.monotonic(), 0

        async def tail() -> None:
            nonlocal heard, shown
            start = 0
            async for lines in self._client.tail_job_logs(self.id):  # from the first line, each time
                heard = time.monotonic()
                new = lines[max(0, shown - start) :]
                start += len(lines)
                if new:
                    show(new)
                    shown += len(new)

        while True:
            try:
                asyncio.run(tail())
                details = self._client.get_job_info(self.id)
                heard = time.monotonic()
            except _OF_THE_CLUSTER as error:
                if not _passes(error):
                    raise
                if time.monotonic() > heard + _PATIENCE_SECONDS:
                    raise ConnectionError(f"the cluster is silent; job {self.id} may go on ({error}).") from error
            else:
                if details.status.is_terminal():
                    return _exit_code(details)
            time.sleep(_POLL_SECONDS)


def submit_job(address: str, submission: Submission) -> SubmittedJob:
    """Send a job to the cluster whose dashboard is at the URL `address`.

    Raises `InputError` if a path of the submission is not there, if no cluster answers, if it wants another token, or
    if it had this submission id before.
    """
    runtime_env = submission.runtime_environment()
    client, deadline = _client(address), time.monotonic() + _PATIENCE_SECONDS
    submission_id = submission.submission_id or f"infrec-{uuid.uuid4().hex[:16]}"
    asked_before = False
    while True:
        try:
            client.submit_job(
                entrypoint=shlex.join(["python", "-m", "infrec.jobs", *submission.command]),
                submission_id=submission_id,
                runtime_env=runtime_env,
                metadata=dict(submission.metadata),
                entrypoint_num_cpus=submission.cpus,
                entrypoint_memory=submission.memory,
            )
        except _OF_THE_CLUSTER as error:
            if "already exists" in str(error):
                if asked_before:
                    break  # the cluster had taken it, and only its answer was lost
                raise InputError(
                    f"A job {submission_id} was submitted to {address} before: choose another id.", "submission_id"
                ) from error
            if not _passes(error) or time.monotonic() > deadline:
                raise
            asked_before = True
            time.sleep(_POLL_SECONDS)
        else:
            break
    return SubmittedJob(client, submission_id)


def _passes(error: Exception) -> bool:
    """Return whether the cluster may answer if it is asked again: it has just begun, or is away for a moment."""
    if isinstance(error, aiohttp.ClientResponseError):
        return error.status >= 500
    return not isinstance(error, RuntimeError) or _PASSES.search(str(error)) is not None


def _client(address: str) -> JobSubmissionClient:
    if not address.startswith(("http://", "https://")):
        raise InputError(f"{address} is not the URL of a Ray dashboard: write it like http://HEAD:8265.", "address")
    try:
        with environment({"RAY_API_SERVER_ADDRESS": address}):  # Ray prefers $RAY_ADDRESS to its argument
            return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise InputError(
            f"The cluster at {address} asks for its token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH if it is not in ~/.ray/auth_token."
        ) from error
    except (OSError, RuntimeError, ValueError, KeyError) as error:  # nobody answers, or another kind of server does
        raise InputError(f"No Ray cluster answers at {address}: give the URL of its dashboard.", "address") from error


def _exit_code(details: JobDetails) -> int:
    code: int | None = details.driver_exit_code
    if code is None:
        if details.status == JobStatus.STOPPED:
            raise RuntimeError(f"job {details.submission_id} was stopped.")
        raise RuntimeError(f"job {details.submission_id} failed, not by its own doing: {details.message}")
    return code if code >= 0 else 128 - code  # a signal killed the job: give the code that a shell gives
