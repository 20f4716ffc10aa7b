"""Tasks with labels: what their options mean for metrics, job.json and fingerprints."""

import pytest

from tests.crds.corpus import load, patched
from unfreeze_api.apiserver.validate import load_job, validate
from unfreeze_api.resolve import resolve

BASE = load("base.yaml")


def manifest(options, **spec):
    return patched(BASE, {"spec": {"task": {"textClassification": options}, **spec}})


def resolved(options, **spec):
    return resolve("job", "default", load_job(manifest(options, **spec)).spec, rendezvous_host="host")


@pytest.mark.parametrize(
    "options",
    [
        {"labels": "Multi"},
        {"labels": "Multi", "labelSeparator": "; "},
        {"labels": "Single"},
        {"classWeights": "Balanced", "focalLoss": {}, "sampling": "Shuffled"},
        {"classWeightsByLabel": {"spam": 3, "a label, of words": 0.5}, "labelSmoothing": 0.1},
        {"labels": "Multi", "classWeights": "Balanced", "focalLoss": {"gamma": 1}, "labelSmoothing": 0},
        {"labels": "Multi", "classWeightsByLabel": {"spam": 3}, "sampling": "Shuffled"},
        {"sampling": "Balanced", "labelSmoothing": 0.1},
        {"sampling": "Balanced", "focalLoss": {}},
    ],
)
def test_what_goes_together(options):
    assert validate(manifest(options)) == []


def test_several_labels_are_measured_by_metrics_of_their_own():
    assert resolved({"labels": "Multi"}).training.metric == "microF1"
    assert resolved({"labels": "Multi"}, training={"metric": "mAP"}).metric.name == "mAP"
    assert resolved({"labels": "Single"}).training.metric == resolved({}).training.metric == "accuracy"


@pytest.mark.parametrize(
    "options",
    [
        {"labels": "Multi"},
        {"classWeights": "Balanced"},
        {"classWeightsByLabel": {"spam": 3}},
        {"labelSmoothing": 0.1},
        {"focalLoss": {"gamma": 2}},
        {"sampling": "Balanced"},
    ],
)
def test_what_trainers_of_before_would_ignore_they_refuse(options):
    job = resolved(options)
    assert job.schema_version == 2
    assert job.fingerprint() != resolved({}).fingerprint()
    [(name, value)] = options.items()
    assert job.model_dump(mode="json")["task"]["textClassification"][name] == value


def test_what_nobody_sets_stands_in_no_job_file():
    assert "labels" not in resolved({}).to_json()
    assert resolved({}).schema_version == 1
