"""The ways that the loss of users takes on processors of several kinds. Any machine can take each of them."""

from __future__ import annotations

import jax
import pytest

from infrec.kernels import multinomial

PROCESSORS = ("CPU", "CPU with bfloat16", "accelerator")


def act_as(processor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the way of this processor."""
    monkeypatch.setattr(multinomial, "cpu_multiplies_bfloat16", lambda: processor == "CPU with bfloat16")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu" if processor == "accelerator" else "cpu")
