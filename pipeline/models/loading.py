"""Open a model of any kind from its artefact."""

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
    """Read the recommender in a model artefact. Raises `InputError` if the kind of the model is unknown."""
    name = artefact.manifest.config["model"]
    if name not in MODELS:
        raise InputError(f"{artefact.location} is a {name} model, this infrec knows {', '.join(MODELS)}.")
    return MODELS[name].load(artefact)


def open_model(uri: str | Location, dataset: Dataset, *, earlier: bool = False) -> Artefact:
    """Open the model or summary at `uri`, and check its items.

    They must be the items of `dataset`. With `earlier` they may be the first of them only: the items that the dataset
    had when it was smaller. Raises `InputError` if the model knows other items.
    """
    model = Artefact.open(uri, Kind.MODEL, Kind.SUMMARY)
    known, items = model.table(ITEMS)["item_id"], dataset.items()["item_id"]
    if not known.equals(items[: len(known)] if earlier else items):
        raise InputError(
            f"{uri} knows other items than {dataset.artefact.location}: "
            f"fit it on this dataset, or ingest the logs with the items of the model's dataset.",
            "items_from",
        )
    return model
