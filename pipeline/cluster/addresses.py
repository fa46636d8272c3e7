"""The address of a Ray cluster, checked before Ray is asked: Ray itself waits ten minutes where nobody answers."""

from __future__ import annotations

import socket

from infrec.pipeline.storage import InputError

_ANSWER_SECONDS = 5.0
_LOCAL = ("auto", "local")


def check_address(address: str) -> None:
    """Raise `InputError` if no head of a Ray cluster can be at `address`, such as "10.0.0.1:6379"."""
    if address in _LOCAL:
        return
    scheme, _, place = address.rpartition("://")
    if scheme not in ("", "ray"):
        raise InputError(
            f"{address} is the address of a dashboard, to which jobs are submitted; give that of Ray's head, such as "
            f"10.0.0.1:6379.",
            "address",
        )
    host, _, port = place.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"{address} is not the address of Ray's head, such as 10.0.0.1:6379.", "address")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")  # Ray's head speaks HTTP/2
            answer = connection.recv(8)
    except (OSError, OverflowError) as error:
        raise InputError(f"No Ray cluster answers at {address} ({error}).", "address") from error
    if answer.startswith(b"HTTP/1"):
        raise InputError(f"A web server answers at {address}, and not Ray's head, such as 10.0.0.1:6379.", "address")
