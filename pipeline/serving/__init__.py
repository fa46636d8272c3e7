"""The uses of a model or a summary: its evaluation, its recommendations, and files for other programs.

`evaluation` and `recommendation` go through a dataset slice by slice (`slices`). `learners` trains other models on a
summary. `export` writes a summary as one file.
"""

from infrec.pipeline.serving.evaluation import Evaluation, evaluate, evaluate_all
from infrec.pipeline.serving.export import ExportFormat, file_content, usual_length
from infrec.pipeline.serving.learners import Learner, Lesson
from infrec.pipeline.serving.recommendation import RecommendConfig, recommend
from infrec.pipeline.serving.slices import scoring_work

__all__ = [
    "Evaluation",
    "ExportFormat",
    "Learner",
    "Lesson",
    "RecommendConfig",
    "evaluate",
    "evaluate_all",
    "file_content",
    "recommend",
    "scoring_work",
    "usual_length",
]
