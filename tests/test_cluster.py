"""`cluster.yaml` is what Ray's launcher accepts."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[1]


def test_the_launcher_accepts_the_cluster() -> None:
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    validate_config(prepare_config(config))
    assert set(config["available_node_types"]) == {"head", "cpu-worker", "gpu-worker"}


def test_the_launcher_refuses_an_unknown_key() -> None:
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    config["available_node_types"]["head"]["wheels"] = 4
    with pytest.raises(Exception, match="wheels"):
        validate_config(prepare_config(config))
