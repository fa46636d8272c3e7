"""The hyper-parameters of Distill-CF that a sweep tries: fixed values, lists and ranges, from a TOML or YAML file.

learning_rate = {log = [0.01, 0.3]}    # log-uniform between the two
drop = {uniform = [0.2, 0.7]}
temperature = [3, 10, 30]              # one of these
steps = 100                            # in every trial
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import yaml
from ray import tune

from infrec.kernels.ntk import NTK
from infrec.kernels.sampler import Sampler
from infrec.pipeline.distillation import DistillConfig
from infrec.pipeline.storage import InputError, Location

PARAMETERS: Mapping[str, type] = {
    "temperature": float,
    "draws": int,
    "cardinality": float,
    "learning_rate": float,
    "drop": float,
    "sharpness": float,
    "depth": int,
    "lambda": float,
    "steps": int,
    "validate_every": int,
}
"""The parameters that can be set or searched. An `int` is a whole number."""

Domain = tune.search.sample.Domain
Space = Mapping[str, Any]
"""Name → a number, or the domain from which it is drawn."""

DEFAULT_SPACE: Space = {
    "temperature": tune.choice([5.0, 10.0, 20.0]),
    "draws": tune.choice([100, 200, 400]),
    "cardinality": tune.loguniform(1e-4, 1e-1),
    "learning_rate": tune.loguniform(0.02, 0.3),
    "drop": tune.uniform(0.2, 0.7),
    "sharpness": tune.loguniform(1.0, 30.0),
    "depth": tune.choice([1, 2]),
}
"""Domains around the values that are best on ML-1M. λ is not among them, because validation chooses it."""


def read_space(uri: str) -> Space:
    """Return the space that a `.toml`, `.yaml` or `.yml` file describes. Raises `InputError` with file and key."""
    location = Location.of(uri)
    if not location.info().is_file:
        raise InputError(f"There is no search space at {uri}.")
    text = location.read().to_pybytes().decode(errors="replace")
    try:
        body = yaml.safe_load(text) if uri.endswith((".yaml", ".yml")) else tomllib.loads(text)
    except (yaml.YAMLError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{uri} is not a search space: {' '.join(str(error).split())}.") from error
    if not isinstance(body, dict):
        raise InputError(f"{uri} is not a search space: it must be a table of parameters.")
    for key in body:
        if key not in PARAMETERS:
            raise InputError(f"{uri}: there is no parameter {key}; there are {', '.join(PARAMETERS)}.")
    return {key: _domain(value, PARAMETERS[key], f"{uri}: {key}") for key, value in body.items()}


def drawn(space: Space, rng: np.random.Generator) -> dict[str, Any]:
    """Return one value for each parameter, drawn where the space has a domain."""
    return {
        name: PARAMETERS[name](value.sample(random_state=rng) if isinstance(value, Domain) else value)
        for name, value in space.items()
    }


def fixed(space: Space) -> dict[str, Any]:
    """Return the parameters that have one value in every trial."""
    return {name: value for name, value in space.items() if not isinstance(value, Domain)}


def described(space: Space) -> dict[str, Any]:
    """Return the space as plain values."""
    return {
        name: f"{type(value.sampler or value).__name__} {value.domain_str}" if isinstance(value, Domain) else value
        for name, value in space.items()
    }


def with_parameters(config: DistillConfig, given: Mapping[str, Any]) -> DistillConfig:
    """Return `config` with these parameters in place of its own. Raises `InputError` if one is out of range."""
    names = dict(given)
    sampler = {name: names.pop(name) for name in ("temperature", "draws") if name in names}
    try:
        if sampler:
            names["sampler"] = replace(config.sampler, **sampler)
        if "depth" in names:
            names["ntk"] = replace(config.ntk, depth=names.pop("depth"))
    except ValueError as error:
        raise InputError(f"The search space is out of range: {error}.") from error
    if "lambda" in names:
        names["lambdas"] = (names.pop("lambda"),)
    if "steps" in names:
        names["restarts"] = 0  # there are as many as are given: see `DistillConfig.for_budget`
    return replace(config, **names)


def parameters_of(config: DistillConfig) -> dict[str, Any]:
    """Return the values of the parameters in `config`. λ is not among them, because validation chooses it."""
    sampler: Sampler = config.sampler
    ntk: NTK = config.ntk
    return {
        "temperature": sampler.temperature,
        "draws": sampler.draws,
        "cardinality": config.cardinality,
        "learning_rate": config.learning_rate,
        "drop": config.drop,
        "sharpness": config.sharpness,
        "depth": ntk.depth,
        "steps": config.steps,
    }


def _domain(value: Any, kind: type, where: str) -> Any:
    if isinstance(value, list):
        if not value:
            raise InputError(f"{where} is an empty list.")
        return tune.choice([_number(one, kind, where) for one in value])
    if not isinstance(value, dict):
        return _number(value, kind, where)
    if len(value) != 1 or not {*value} <= {"log", "uniform"}:
        raise InputError(f"{where} must be a number, a list, or one range such as {{log = [1, 10]}} or uniform.")
    ((scale, bounds),) = value.items()
    if not isinstance(bounds, list) or len(bounds) != 2:
        raise InputError(f"{where}: {scale} needs a list of two numbers.")
    low, high = (_number(bound, kind, where) for bound in bounds)
    if not (low < high and (scale == "uniform" or low > 0)):
        raise InputError(f"{where}: {scale} needs two numbers, the first less than the second, and above 0 for log.")
    if kind is int:
        return tune.lograndint(low, high + 1) if scale == "log" else tune.randint(low, high + 1)
    return tune.loguniform(low, high) if scale == "log" else tune.uniform(low, high)


def _number(value: Any, kind: type, where: str) -> Any:
    whole = kind is int
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or (whole and value != int(value)):
        raise InputError(f"{where} must be a {'whole ' if whole else ''}number, it is {value!r}.")
    return kind(value)
