"""Jobs on a real cluster, which asks for a token: a head without CPUs that `ray start` began, and an autoscaler.

The autoscaler is Ray's own, its cloud is this machine: a node is one more raylet here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from infrec.jobs.cli import main
from tests.builders import taste_dataset
from tests.nodes import PATIENTLY, free_ports
from tests.patience import PATIENCE_SECONDS
from tests.proxy import Proxy
from tests.sentence import assert_one_sentence

REPOSITORY = Path(__file__).parents[1]
NOBODY = "http://127.0.0.1:9"
_OF_THE_HEAD = {
    "RAY_FAKE_CLUSTER": "1",
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_health_check_failure_threshold": "200",  # on a busy machine a node is slow, and not lost
    "RAY_agent_register_timeout_ms": str(1000 * PATIENCE_SECONDS),
}


_RAY = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from tests.nodes import wait_for_slow_nodes
wait_for_slow_nodes()
del sys.path[0]
from ray.scripts.scripts import main
main()
"""
"""The command `ray`. Its nodes may be slow."""


class Head:
    """The cluster's head node, and what its users type."""

    def __init__(self, scratch: str) -> None:
        names = ("port", "dashboard-port", "ray-client-server-port")
        ports = free_ports(len(names))
        self.address = f"http://127.0.0.1:{ports[1]}"
        self.scratch = Path(scratch)
        self.token = uuid.uuid4().hex
        config = self.scratch / "cluster.json"
        config.write_text(json.dumps(_autoscaled(f"127.0.0.1:{ports[0]}")))
        # The cluster's `python` is the one of these tests, and it has no other infrec than the one that is sent
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        ours = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment = {**ours, "PATH": path, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        self._said = self.scratch / "head.txt"
        with self._said.open("w") as said:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    _RAY,
                    "start",
                    "--head",
                    "--block",
                    "--num-cpus=0",
                    "--object-store-memory=100000000",
                ]
                + [f"--autoscaling-config={config}"]
                + [f"--temp-dir={scratch}", "--node-ip-address=127.0.0.1", "--disable-usage-stats"]
                + [f"--{name}={port}" for name, port in zip(names, ports, strict=True)],
                env={**self.environment, **_OF_THE_HEAD},
                cwd=scratch,
                stdout=said,
                stderr=subprocess.STDOUT,
            )

    def wait(self) -> None:
        """Wait until it takes jobs."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._takes_jobs():
            assert time.monotonic() < deadline, "the cluster did not start"
            self._assert_alive()
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it and all that it has started."""
        if self._process.poll() is not None:
            return
        started = psutil.Process(self._process.pid).children(recursive=True)
        self._process.terminate()
        self._process.wait(timeout=PATIENCE_SECONDS)
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def begin(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command of a user of the cluster."""
        self._assert_alive()
        return subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def submit(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start `infrec submit`, with this source tree."""
        infrec = (sys.executable, "-m", "jobs", "submit", "--address", self.address, "--working-dir", ".")
        return self.begin(*infrec, *arguments, RAY_ADDRESS=NOBODY, **environment)  # which --address overrides

    def job(self, submission_id: str) -> dict[str, object]:
        """Return the details of a job as the cluster has them."""
        return self._get(f"/api/jobs/{submission_id}").json()

    def resource(self, name: str) -> float:
        """Return how much of it the cluster's nodes have."""
        nodes = self._get("/api/v0/nodes").json()["data"]["result"]["result"]
        return float(sum(node["resources_total"].get(name, 0) for node in nodes if node["state"] == "ALIVE"))

    def _get(self, path: str) -> requests.Response:
        return requests.get(self.address + path, headers={"Authorization": f"Bearer {self.token}"}, timeout=10)

    def _assert_alive(self) -> None:
        assert self._process.poll() is None, self._said.read_text()[-4000:]

    def _takes_jobs(self) -> bool:
        try:
            return self._get("/api/jobs/").ok
        except requests.ConnectionError:
            return False


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as scratch:  # sockets want short paths
        head = Head(scratch)
        try:
            head.wait()
            yield head
        finally:
            head.stop()


def test_without_an_address_a_job_has_a_ray_of_its_own(head: Head) -> None:
    """Though one was begun on this machine, of which Ray keeps a note."""
    code = "from infrec.pipeline.cluster import ray_session\nwith ray_session(cpus=3) as cluster: print(cluster.cpus)"
    run = head.begin(sys.executable, "-c", f"{PATIENTLY}\n{code}", RAY_AUTH_MODE="disabled")
    printed, said = run.communicate(timeout=PATIENCE_SECONDS)
    assert run.returncode == 0, said
    assert printed.split()[-1] == "3"


def test_a_job_has_an_autoscaler_bring_nodes(head: Head, tmp_path: Path) -> None:
    """The first job of all: there is no CPU yet, nor anything else that would want one."""
    dataset = taste_dataset(tmp_path / "data", 30, 40, seed=0)
    command = ["plan", str(dataset.artefact.location), "--cpus", "2", "--gpus", "1", "--json"]
    code, out, errors = _end(head.submit("--", *command))
    assert code == 0, out + errors
    assert json.loads(out.splitlines()[-1])["resources"]["cpus"] == 2
    assert head.resource("GPU") == 1


def test_a_submitted_job_is_like_one_that_runs_here(head: Head, tmp_path: Path) -> None:
    """Its output comes back, its files are there, its exit code is 0; a second one of its name is refused."""
    dataset, model = taste_dataset(tmp_path / "data", 30, 40, seed=0), tmp_path / "model"
    arguments = ["--submission-id", "nightly-1", "--metadata", "owner=tests", "--job-cpus", "0.5", "--"]
    command = ["fit", str(dataset.artefact.location), "--out", str(model), "--lambda", "5", "--json"]
    code, out, errors = _end(head.submit(*arguments, *command))
    assert code == 0, out + errors
    assert "Job nightly-1 is submitted to" in errors
    assert json.loads(out.splitlines()[-1])["config"]["model"] == "infinite-ae"
    assert (model / "manifest.json").exists()
    job = head.job("nightly-1")
    assert job["metadata"]["owner"] == "tests" and job["driver_exit_code"] == 0
    sent = head.scratch.glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*/*")
    folders = {path.name for path in sent if path.is_dir()}
    assert folders >= {"jobs", "kernels", "pipeline"}
    assert not folders & {".git", ".venv", "tests", "benchmarks", "demo-output"}

    code, out, errors = _end(head.submit(*arguments, *command))
    assert (code, out) == (2, "")
    said = f"infrec: A job nightly-1 was submitted to {head.address} before: choose another id (--submission-id)."
    assert errors.splitlines()[-1] == said and "Traceback" not in errors


def test_the_exit_code_is_the_jobs_own(head: Head, tmp_path: Path) -> None:
    """And its logs are in the format of this one's, under the submission id."""
    command = ["fit", str(tmp_path / "nowhere"), "--out", str(tmp_path / "model")]
    code, out, _ = _end(head.submit("--submission-id", "nightly-2", "--", *command, INFREC_LOG_FORMAT="json"))
    logged = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    said = [(line["run_id"], line["job"], line.get("message")) for line in logged if line["event"] == "error"]
    assert code == 2 and said == [("nightly-2", "fit", f"There is no dataset at {tmp_path / 'nowhere'}.")]

    ray = ("ray", "job", "submit", "--address", head.address, "--working-dir", ".", "--", "python", "-m", "jobs")
    code, out, _ = _end(head.begin(*ray, *command))
    assert code == 1 and "failed with exit code 2" in out  # which Ray's own command says but does not return


def test_ctrl_c_leaves_the_job_running_and_says_how_to_end_it(head: Head, tmp_path: Path) -> None:
    dataset = taste_dataset(tmp_path / "data", 300, 100, seed=0)
    grid = ",".join(str(1 + step / 1000) for step in range(4000))
    command = ["fit", str(dataset.artefact.location), "--out", str(tmp_path / "model"), "--lambda", grid]
    follower = head.submit("--submission-id", "long", "--", *command)
    assert follower.stdout is not None
    follower.stdout.readline()  # its first output: it runs
    follower.send_signal(signal.SIGINT)
    code, _, errors = _end(follower)
    assert code == 130 and "Traceback" not in errors
    said = errors.splitlines()[-1]
    assert said.startswith("infrec: no longer following job long, which goes on; `ray job stop ")
    assert head.job("long")["status"] == "RUNNING"
    _end(head.begin(*said.split("`")[1].split()))
    assert head.job("long")["status"] == "STOPPED"
    assert not (tmp_path / "model").exists()


def test_connections_that_end_are_made_anew(head: Head, tmp_path: Path) -> None:
    """The log comes once and whole, and the exit code is the job's, whatever happens between."""
    program = tmp_path / "job.py"
    program.write_text(_STEP_BY_STEP)
    proxy = Proxy(int(head.address.rpartition(":")[2]))
    follower = head.begin(sys.executable, "-c", _FOLLOW, proxy.address, f"python {program} {tmp_path}")
    assert follower.stdout is not None

    def line() -> str:
        """The next line that the job itself wrote."""
        assert follower.stdout is not None
        return next(line.strip() for line in follower.stdout if line.startswith("step "))

    assert line() == "step 0"
    with proxy.busy():
        _wait_for(lambda: proxy.refused > 2)
    (tmp_path / "0").touch()
    assert line() == "step 1"
    proxy.cut()
    (tmp_path / "1").touch()
    assert line() == "step 2"
    with proxy.away():
        (tmp_path / "2").touch()
        _wait_for(lambda: proxy.refused > 2)
    assert line() == "step 3"
    (tmp_path / "3").touch()
    code, rest, errors = _end(follower)
    proxy.close()
    assert code == 7, rest + errors
    assert "step" not in rest


_STEP_BY_STEP = """
import pathlib, sys, time
for step in range(4):
    print("step", step, flush=True)
    while not (pathlib.Path(sys.argv[1]) / str(step)).exists():
        time.sleep(0.05)
sys.exit(7)
"""
"""A job that goes on whenever the test says so."""

_FOLLOW = """
import sys
from ray.job_submission import JobSubmissionClient
from infrec.pipeline.cluster.submission import SubmittedJob
client = JobSubmissionClient(sys.argv[1])
job = SubmittedJob(client, client.submit_job(entrypoint=sys.argv[2]))
sys.exit(job.follow(lambda lines: print(lines, end="", flush=True)))
"""


def test_who_no_longer_reads_ends_submit(head: Head) -> None:
    """As in `infrec submit … | head`: that the pipe is closed is no fault of the cluster's."""
    follower = head.begin(sys.executable, "-c", _FOLLOW, head.address, "seq 100000")
    assert follower.stdout is not None
    follower.stdout.readline()
    follower.stdout.close()
    assert follower.wait(timeout=PATIENCE_SECONDS) != 0
    assert follower.stderr is not None
    with follower.stderr as said:
        assert "BrokenPipeError" in said.read()


def test_a_cluster_that_asks_for_a_token(head: Head) -> None:
    infrec = (sys.executable, "-m", "jobs", "submit", "--address", head.address, "--", "plan", "data")
    for other in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "another"}):
        code, out, errors = _end(head.begin(*infrec, **other))
        assert (code, out) == (2, "") and "Traceback" not in errors
        assert f"infrec: The cluster at {head.address} asks for its token: set RAY_AUTH_MODE=token" in errors


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "Missing argument 'JOB…'."),
        (["fits", "data"], "There is no job fits to submit: choose one of demo, generate, ingest, "),
        (["submit", "fit", "data"], "There is no job submit to submit"),
        (["fit", "data", "--out", "model", "--lamda", "5"], "No such option: --lamda"),
        (["--metadata", "owner", "--", "plan", "data"], "--metadata owner is not of the form KEY=VALUE."),
        (["--job-memory", "plenty", "--", "plan", "data"], "--job-memory plenty is not a size"),
        (["--job-cpus", "-1", "--", "plan", "data"], "'--job-cpus'"),
        (["--working-dir", "nowhere", "--", "plan", "data"], "nowhere is not a directory (--working-dir)."),
        (["--pip", "nowhere.txt", "--", "plan", "data"], "nowhere.txt is not a file of requirements (--pip)."),
        (["--", "plan", "data"], f"No Ray cluster answers at {NOBODY}: give the URL of its dashboard (--address)."),
        (["--address", "auto", "--", "plan", "data"], "auto is not the URL of a Ray dashboard"),
    ],
)
def test_submit_refuses_in_one_sentence(options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "--address", NOBODY, *options]) == 2
    assert_one_sentence(capsys, sentence)


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command that comes to its end."""
    with process:
        try:
            out, errors = process.communicate(timeout=PATIENCE_SECONDS)
        finally:
            process.kill()
    return process.returncode, out, errors


def _autoscaled(address: str) -> dict[str, Any]:
    """A cluster that begins with no CPU, and may have one node with two and one with a GPU: `cluster.yaml` in small."""
    node = {
        "resources": {"CPU": 2, "object_store_memory": 10**8},
        "node_config": {},
        "min_workers": 0,
        "max_workers": 1,
    }
    with_gpu = {**node, "resources": {"CPU": 0, "GPU": 1, "object_store_memory": 10**8}}
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    return {
        **{f"{name}_commands": [] for name in commands},
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        **{"cluster_synced_files": [], "file_mounts_sync_continuously": False},
        "cluster_name": "tests",
        "max_workers": 2,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 10,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            "disable_node_updaters": True,  # a node needs no ssh and no set-up
            "disable_launch_config_check": True,
        },
        "available_node_types": {"ray.head.default": head, "cpu-worker": node, "gpu-worker": with_gpu},
        "head_node_type": "ray.head.default",
    }
