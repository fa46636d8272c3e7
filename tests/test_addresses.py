"""The address of a cluster that nobody answers at, or somebody else, is refused in a sentence, and at once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import ray

from infrec.pipeline.cluster.addresses import check_address
from infrec.pipeline.storage import InputError
from tests.builders import taste_dataset


@pytest.fixture
def nobody() -> str:
    """The address of a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def web_server() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_head_of_a_cluster_is_known(cluster: object) -> None:
    check_address(ray.get_runtime_context().gcs_address)
    check_address("auto")


def test_nobody(nobody: str) -> None:
    for address in (nobody, f"ray://{nobody}"):
        with pytest.raises(InputError, match=f"^No Ray cluster answers at {address} "):
            check_address(address)


def test_a_web_server(web_server: str) -> None:
    with pytest.raises(InputError, match=r"^A web server answers at"):
        check_address(web_server)


@pytest.mark.parametrize("address", ["http://head:8265", "https://head"])
def test_a_dashboard(address: str) -> None:
    with pytest.raises(InputError, match="is the address of a dashboard"):
        check_address(address)


@pytest.mark.parametrize("address", ["", "head", "head:", ":6379", "head:ray", "127.0.0.1:99999"])
def test_no_address(address: str) -> None:
    with pytest.raises(InputError):
        check_address(address)


@pytest.mark.parametrize("by_variable", [False, True])
def test_a_job_ends_with_a_sentence(nobody: str, by_variable: bool, tmp_path: Path) -> None:
    taste_dataset(tmp_path / "data", 300, 60, seed=0)
    command = [sys.executable, "-m", "jobs", "plan", str(tmp_path / "data")]
    environment = os.environ | {"RAY_ADDRESS": nobody} if by_variable else os.environ
    command += [] if by_variable else ["--address", nobody]
    ended = subprocess.run(
        command, cwd=Path(__file__).parents[1], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"infrec: No Ray cluster answers at {nobody} ")
    assert ended.stderr.count("\n") == 1
