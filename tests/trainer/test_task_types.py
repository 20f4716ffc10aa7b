"""Each task of the API has its half in the trainer, under the same name, and so has what it learns."""

import importlib

import pytest
from pydantic.alias_generators import to_snake

from unfreeze_api.tasks import TASKS
from unfreeze_api.tasks.alignment import ALIGNMENT
from unfreeze_api.tasks.base import CLASSIFICATION, MULTI_LABEL
from unfreeze_api.tasks.causal_lm import LANGUAGE
from unfreeze_api.tasks.image_text import IMAGE_TEXT
from unfreeze_api.tasks.text_embedding import RETRIEVAL, SIMILARITY
from unfreeze_api.tasks.token_classification import TAGGING
from unfreeze_trainer.objectives.agreement import AgreementMetrics
from unfreeze_trainer.objectives.captions import CaptionMetrics
from unfreeze_trainer.objectives.classification import ClassificationMetrics
from unfreeze_trainer.objectives.multi_label import MultiLabelMetrics
from unfreeze_trainer.objectives.next_token import NextTokenMetrics
from unfreeze_trainer.objectives.retrieval import Retrieval
from unfreeze_trainer.objectives.similarity import SimilarityMetrics
from unfreeze_trainer.objectives.tagging import TagMetrics
from unfreeze_trainer.objectives.targets import Encoder, encoder
from unfreeze_trainer.objectives.teacher_forcing import TeacherForcingMetrics
from unfreeze_trainer.tasks import Task


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_task_has_a_file_in_both_rooms(task):
    module = importlib.import_module(f"unfreeze_trainer.tasks.{to_snake(task.name)}")
    assert issubclass(getattr(module, task.name), Task)
    assert issubclass(encoder(task.targets), Encoder)


def test_metrics_have_the_same_names_in_both_rooms():
    assert tuple(metric.name for metric in CLASSIFICATION) == ClassificationMetrics.names
    assert tuple(metric.name for metric in MULTI_LABEL) == MultiLabelMetrics.names
    assert tuple(metric.name for metric in TAGGING) == TagMetrics.names
    assert tuple(metric.name for metric in LANGUAGE) == NextTokenMetrics.names
    assert tuple(metric.name for metric in LANGUAGE) == TeacherForcingMetrics.names
    assert tuple(metric.name for metric in RETRIEVAL) == Retrieval.names
    assert tuple(metric.name for metric in SIMILARITY) == SimilarityMetrics.names
    assert tuple(metric.name for metric in ALIGNMENT) == AgreementMetrics.names
    assert tuple(metric.name for metric in IMAGE_TEXT) == CaptionMetrics.names
