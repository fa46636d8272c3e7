"""The models, behind one interface: each model scores all items for users that are given by their histories.

`base` defines the interface. `loading` opens a model from its artefact. `search` and `validation` choose
hyper-parameters. This package fits EASE, matrix factorisation and popularity; `pipeline.solvers` fits the ∞-AE.
"""

from infrec.pipeline.models.base import VALIDATION, Recommender, publish_model
from infrec.pipeline.models.ease import EASE_LAMBDAS, EASEConfig, fit_ease, plan_ease, plan_item_system, solve_ease
from infrec.pipeline.models.infinite_ae import (
    DEGREE_EXPONENTS,
    PAPER_EXPONENTS,
    PAPER_LAMBDAS,
    InfiniteAEConfig,
    Solver,
    publish_infinite_ae,
    tried_lambdas,
    validation_scores,
)
from infrec.pipeline.models.loading import load_recommender, open_model
from infrec.pipeline.models.mf import MF_LAMBDAS, MFConfig, fit_mf, item_factors, plan_factorisation, plan_mf
from infrec.pipeline.models.nystrom import (
    NYSTROM_LAMBDAS,
    LandmarkSampling,
    Nystrom,
    NystromConfig,
    check_landmarks,
    publish_nystrom,
)
from infrec.pipeline.models.popularity import fit_popularity
from infrec.pipeline.models.search import Candidate, best_candidate, best_so_far, check_dense, check_search
from infrec.pipeline.models.summary import (
    HISTORY,
    TRAINING_USERS,
    LabelledRows,
    labelled_rows,
    labels_of,
    publish_labelled_summary,
    publish_summary,
    summary_bytes,
    summary_matrix,
)
from infrec.pipeline.models.validation import Validation

__all__ = [
    "DEGREE_EXPONENTS",
    "EASE_LAMBDAS",
    "HISTORY",
    "MF_LAMBDAS",
    "NYSTROM_LAMBDAS",
    "PAPER_EXPONENTS",
    "PAPER_LAMBDAS",
    "TRAINING_USERS",
    "VALIDATION",
    "Candidate",
    "EASEConfig",
    "InfiniteAEConfig",
    "LabelledRows",
    "LandmarkSampling",
    "MFConfig",
    "Nystrom",
    "NystromConfig",
    "Recommender",
    "Solver",
    "Validation",
    "best_candidate",
    "best_so_far",
    "check_dense",
    "check_landmarks",
    "check_search",
    "fit_ease",
    "fit_mf",
    "fit_popularity",
    "item_factors",
    "labelled_rows",
    "labels_of",
    "load_recommender",
    "open_model",
    "plan_ease",
    "plan_factorisation",
    "plan_item_system",
    "plan_mf",
    "publish_infinite_ae",
    "publish_labelled_summary",
    "publish_model",
    "publish_nystrom",
    "publish_summary",
    "solve_ease",
    "summary_bytes",
    "summary_matrix",
    "tried_lambdas",
    "validation_scores",
]
