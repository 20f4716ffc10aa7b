"""`unfreeze validate` without a cluster: the corpus, and what stands around manifests."""

import copy
import math

import pytest
from hypothesis import HealthCheck, given, settings

from tests.crds import of_tasks
from tests.crds.corpus import load, parameters, patched
from tests.crds.generate import broken, manifests
from unfreeze_api.apiserver.errors import BLOCKING, NO_FIELD, RULES_SKIPPED, Cause, number
from unfreeze_api.apiserver.validate import InvalidManifest, defaulted, load_job, validate
from unfreeze_api.job import FineTuneJob, parse_spec

BASE = load("base.yaml")
FEW = settings(max_examples=30, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.mark.parametrize("case", parameters("good.yaml"))
def test_good(case):
    manifest = patched(BASE, case["patch"])
    assert validate(manifest) == []
    assert load_job(manifest).spec == parse_spec(manifest["spec"])


@pytest.mark.parametrize("case", parameters("bad.yaml"))
def test_bad(case):
    causes = validate(patched(BASE, case["patch"]))
    assert sorted(str(cause) for cause in causes if cause != RULES_SKIPPED) == sorted(case["causes"])
    assert (RULES_SKIPPED in causes) == any(cause.reason in BLOCKING for cause in causes)


@pytest.mark.slow
def test_what_each_task_declares():
    assert of_tasks.wrong() == []


@pytest.mark.parametrize("case", parameters("updates.yaml"))
def test_update(case):
    before = patched(BASE, case.get("before", {}))
    causes = validate(patched(before, case["after"]), before)
    assert sorted(map(str, causes)) == sorted(case.get("causes", []))


def test_a_stored_job_can_be_suspended_under_a_rule_that_came_later():
    # Strategy and adapter of a stored job cannot be changed: nothing that is said of them would help.
    before = patched(BASE, {"spec": {"strategy": {"type": "BitFit"}, "adapter": {"type": "LoRA"}}})
    assert len(validate(before)) == 1
    assert validate(patched(before, {"spec": {"runPolicy": {"suspend": True}}}), before) == []


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (10**309, f"json: cannot unmarshal number {10**309} into Go value of type float64"),
        (math.inf, "json: unsupported value: inf"),
        (math.nan, "json: unsupported value: nan"),
    ],
)
def test_numbers_that_json_does_not_carry(value, said):
    (cause,) = validate(patched(BASE, {"spec": {"training": {"epochs": value}}}))
    assert cause == Cause("", said, "BadRequest")


def test_corpus_is_large_enough_and_its_mistakes_are_distinct():
    bad, good = load("bad.yaml"), load("good.yaml")
    assert len(bad) >= 40
    assert len(good) >= 20
    assert len({case["name"] for case in bad}) == len({str(case["patch"]) for case in bad}) == len(bad)


@pytest.mark.slow
def test_every_rule_is_broken_somewhere_in_the_corpus():
    from unfreeze_api.generate.crd import schema

    said = "\n".join(
        cause for file in ("bad.yaml", "updates.yaml") for case in load(file) for cause in case.get("causes", ())
    )

    def messages(node):
        yield from (rule["message"] for rule in node.get("x-kubernetes-validations", ()))
        inner = [*node.get("properties", {}).values(), node.get("items"), node.get("additionalProperties")]
        for part in filter(None, inner):
            yield from messages(part)

    assert [message for message in messages(schema()) if message not in said] == []


@pytest.mark.slow
@FEW
@given(manifests())
def test_generated_manifests_are_valid_and_the_models_take_them(manifest):
    assert validate(manifest) == []
    job = load_job(manifest)
    stored = defaulted(manifest)
    assert parse_spec(stored["spec"]) == job.spec == parse_spec(manifest["spec"])
    assert validate(stored, stored) == []


@pytest.mark.slow
@FEW
@given(broken())
def test_what_the_models_refuse_is_refused_with_causes(manifest):
    before = copy.deepcopy(manifest)
    causes = validate(manifest)
    assert manifest == before
    if not causes:
        parse_spec(defaulted(manifest)["spec"])


def test_explicit_nulls_count_as_absent():
    manifest = patched(BASE, {})
    manifest["spec"] |= {
        "adapter": None,
        "training": None,
        "runPolicy": {"suspend": None, "activeDeadlineSeconds": None},
    }
    assert validate(manifest) == []
    job = load_job(manifest)
    assert job.spec.adapter is None
    assert job.spec.training.epochs == 3
    assert job.spec.run_policy.suspend is False


def test_stored_objects_with_foreign_metadata_and_status_parse():
    stored = defaulted(BASE) | {"status": {"phase": "Running"}}
    stored["metadata"] = stored["metadata"] | {"uid": "u", "managedFields": [{"manager": "kubectl"}], "generation": 3}
    job = FineTuneJob.model_validate(stored)
    assert (job.metadata.generation, job.status.phase) == (3, "Running")


def test_invalid_manifest_carries_every_cause():
    with pytest.raises(InvalidManifest, match=r'FineTuneJob "job" is invalid: spec.training.epochs') as caught:
        load_job(patched(BASE, {"spec": {"training": {"epochs": 0, "seed": -1}}}))
    assert len(caught.value.causes) == 2


@pytest.mark.parametrize(
    ("patch", "field"),
    [
        ({"kind": "TrainJob"}, "kind"),
        ({"apiVersion": "unfreeze.dev/v1"}, "apiVersion"),
        ({"metadata": {"labels": {"a": 1}}}, ""),
        ({"metadata": {"name": 5}}, ""),
        ({"metadata": None}, "metadata.name"),
        ({"metadata": {"name": "x" * 300}}, "metadata.name"),
        ({"metadata": {"namespace": "My.ns"}}, "metadata.namespace"),
        ({"metadata": {"annotations": {"a": "x" * 300000}}}, "metadata.annotations"),
    ],
)
def test_metadata(patch, field):
    assert field in {cause.field for cause in validate(patched(BASE, patch))}


def test_generated_names_leave_room_for_the_suffix():
    assert validate(patched(BASE, {"metadata": {"name": None, "generateName": "job-"}})) == []
    assert validate(patched(BASE, {"metadata": {"name": None, "generateName": "j" * 50}})) != []


def test_causes_without_field_are_shown_without_one():
    assert str(Cause(NO_FIELD, "text")) == str(Cause("", "text")) == "text"


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (0.5, "0.5"), (1e-5, "1e-05"), (0.0001, "0.0001"), (12345678.9, "1.23456789e+07"), (-2.5e-7, "-2.5e-07"),
     (100000.0, "100000"), (1e6, "1e+06")],
)  # fmt: skip
def test_numbers_are_shown_as_go_does(value, text):
    assert number(value) == text
