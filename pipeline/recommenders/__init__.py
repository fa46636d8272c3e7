"""The models in one interface: each is fitted into an artefact and loaded from it as a `Recommender`."""

from __future__ import annotations

from pipeline.artefact import Artefact
from pipeline.errors import InputError
from pipeline.recommenders.base import Recommender
from pipeline.recommenders.ease import EASE
from pipeline.recommenders.infinite_ae import InfiniteAE
from pipeline.recommenders.mf import MF
from pipeline.recommenders.nystrom import Nystrom
from pipeline.recommenders.popularity import Popularity
from pipeline.recommenders.summary import Summary

MODELS: dict[str, type[Recommender]] = {
    model.name: model for model in (InfiniteAE, Nystrom, EASE, MF, Popularity, Summary)
}


def load_recommender(artefact: Artefact) -> Recommender:
    """The recommender in a model artefact."""
    name = artefact.manifest.config["model"]
    if name not in MODELS:
        raise InputError(f"{artefact.location} is a {name} model, this infrec knows {', '.join(MODELS)}.")
    return MODELS[name].load(artefact)
