"""A model from its artefact, whichever it is."""

from __future__ import annotations

from infrec.pipeline.data import ITEMS, Dataset
from infrec.pipeline.models.base import Recommender
from infrec.pipeline.models.ease import EASE
from infrec.pipeline.models.infinite_ae import InfiniteAE
from infrec.pipeline.models.mf import MF
from infrec.pipeline.models.nystrom import Nystrom
from infrec.pipeline.models.popularity import Popularity
from infrec.pipeline.models.summary import Summary
from infrec.pipeline.storage import Artefact, InputError, Kind, Location

MODELS: dict[str, type[Recommender]] = {
    model.name: model for model in (InfiniteAE, Nystrom, EASE, MF, Popularity, Summary)
}


def load_recommender(artefact: Artefact) -> Recommender:
    """The recommender in a model artefact."""
    name = artefact.manifest.config["model"]
    if name not in MODELS:
        raise InputError(f"{artefact.location} is a {name} model, this infrec knows {', '.join(MODELS)}.")
    return MODELS[name].load(artefact)


def open_model(uri: str | Location, dataset: Dataset, *, earlier: bool = False) -> Artefact:
    """The model or summary at `uri`, if its items are those of `dataset`: all, or as many as there were `earlier`."""
    model = Artefact.open(uri, Kind.MODEL, Kind.SUMMARY)
    known, items = model.table(ITEMS)["item_id"], dataset.items()["item_id"]
    if not known.equals(items[: len(known)] if earlier else items):
        raise InputError(
            f"{uri} knows other items than {dataset.artefact.location}: "
            f"fit it on this dataset, or ingest the logs with the --items-from of the model's dataset."
        )
    return model
