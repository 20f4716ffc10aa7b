"""`unfreeze.job`: what the API server would refuse is refused, in its words; what nobody says has the API's defaults."""

import subprocess
import sys
from pathlib import Path

import pytest

import unfreeze
from tests.crds.corpus import FOLDER
from unfreeze.results import of_status
from unfreeze_api.adapters.lora import LoraSpec
from unfreeze_api.apiserver.validate import validate
from unfreeze_api.spec.training import TrainingSpec
from unfreeze_api.tasks.text_classification import TextClassificationSpec

PARTS = {
    "model": "pvc://models/bert",
    "task": "TextClassification",
    "train": "pvc://data/t.csv",
    "output": "pvc://results/run",
}


def test_short_forms_models_and_dicts_say_the_same():
    short = unfreeze.job(
        "words", **PARTS, test=0.2, adapter="LoRA", strategy="FullFineTuning", columns={"text": "question"}
    )
    long = unfreeze.job(
        "words",
        model={"source": "pvc://models/bert"},
        task=TextClassificationSpec(),
        train={"source": "pvc://data/t.csv", "columns": {"text": "question"}},
        validation={"fraction": 0.1},
        test={"fraction": 0.2},
        adapter={"type": "LoRA", "lora": {}},
        strategy={"type": "FullFineTuning"},
        training={},
        output={"destination": "pvc://results/run"},
    )
    assert short.spec.data == long.spec.data
    assert short.spec.task.completed() == long.spec.task
    assert short.spec.adapter.completed() == long.spec.adapter
    assert short.spec.training == long.spec.training == TrainingSpec()


def test_of_several_models_the_job_chooses_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    several = unfreeze.job("words", **PARTS | {"model": ["pvc://models/bert", Path("minilm")]})
    sources = ["pvc://models/bert", f"file://{tmp_path}/minilm"]
    assert several == unfreeze.job(
        "words", **PARTS | {"model": {"candidates": [{"source": source} for source in sources]}}
    )
    assert unfreeze.manifest(several)["spec"]["model"] == {"candidates": [{"source": source} for source in sources]}
    with pytest.raises(unfreeze.InvalidJob, match="model is empty: name a path"):
        unfreeze.job("words", **PARTS | {"model": ["pvc://models/bert", ""]})
    with pytest.raises(unfreeze.InvalidJob, match=r"spec\.model\.candidates"):
        unfreeze.job("words", **PARTS | {"model": []})


def test_names_of_fields_are_those_of_python_or_of_the_manifest():
    one = unfreeze.job("words", **PARTS, training={"batch_size": 8, "early_stopping": {"min_delta": 0.1}})
    other = unfreeze.job("words", **PARTS, training={"batchSize": 8, "earlyStopping": {"minDelta": 0.1}})
    assert one == other
    assert one.spec.training.early_stopping.min_delta == 0.1


def test_what_is_written_is_what_was_said_and_is_valid():
    document = unfreeze.manifest(unfreeze.job("words", **PARTS, namespace="team"))
    assert document["metadata"] == {"name": "words", "namespace": "team"}
    assert document["spec"] == {
        "model": {"source": "pvc://models/bert"},
        "task": {"type": "TextClassification"},
        "data": {"train": {"source": "pvc://data/t.csv"}},
        "strategy": {"type": "FeatureExtraction"},
        "output": {"destination": "pvc://results/run"},
    }
    assert validate(document) == []


def test_paths_count_from_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = unfreeze.job(
        "words", model="model", task="TextClassification", train=f"{tmp_path}/a/../t.csv", test="file://test.csv"
    )
    assert job.spec.model.source == f"file://{tmp_path}/model"
    assert job.spec.data.train.source == f"file://{tmp_path}/t.csv"
    assert job.spec.data.test.source == f"file://{tmp_path}/test.csv"
    assert job.spec.output.destination == f"file://{tmp_path}/words-run"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task": "TextClasification"}, "spec.task.type: did you mean TextClassification?"),
        ({"training": {"epoch": 3}}, 'unknown field "spec.training.epoch"'),
        ({"training": {"batch_sise": 3}}, "did you mean batchSize?"),
        ({"validation": 1.5}, "spec.data.validation.fraction in body should be less than 1"),
        ({"adapter": LoraSpec(r=4)}, "FeatureExtraction trains the head alone, an adapter would never be trained"),
        ({"output": "pvc://data"}, "must not contain each other"),
        ({"model": "ftp://models/bert"}, "spec.model.source"),
    ],
)
def test_a_job_that_is_wrong(change, said):
    with pytest.raises(unfreeze.InvalidJob) as raised:
        unfreeze.job("words", **(PARTS | change))
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"model": None},
            "model is a path, a source, a list of these to choose from, a dict of fields or a model of the API",
        ),
        (
            {"model": ["pvc://models/bert", 5]},
            "model is a path, a source, a dict of fields or a model of the API, not 5 (int)",
        ),
        ({"test": ["a.csv"]}, "test is a path, a source, a share of the training data, a dict"),
        ({"task": 5}, "task is a type, a dict of fields or a model of the API, not 5 (int)"),
        ({"columns": ["text"]}, "columns is a dict"),
        ({"training": 3}, "training is a dict"),
    ],
)
def test_a_part_of_a_wrong_type_is_named(change, said):
    with pytest.raises(TypeError) as caught:
        unfreeze.job("words", **PARTS | change)
    assert said in str(caught.value)


@pytest.mark.parametrize("part", ["model", "train", "test", "output"])
def test_an_empty_path_is_not_the_current_folder(part):
    with pytest.raises(unfreeze.InvalidJob, match=f"^{part} is empty"):
        unfreeze.job("words", **PARTS | {part: ""})


@pytest.mark.parametrize("use", [unfreeze.run, unfreeze.submit, unfreeze.manifest])
def test_what_is_no_job_is_not_run(use):
    with pytest.raises(TypeError, match=r"a job is what unfreeze\.job\(\) returns"):
        use("job.yaml")
    for ask in (unfreeze.wait, unfreeze.logs, unfreeze.delete):
        with pytest.raises(TypeError, match=r"what unfreeze\.submit\(\) returns"):
            ask(unfreeze.job("words", **PARTS))
    with pytest.raises(ValueError, match="workers is a number from 1 on, not 0"):
        unfreeze.run(unfreeze.job("words", **PARTS), workers=0)


def test_a_name_that_no_job_has():
    with pytest.raises(unfreeze.InvalidJob, match="RFC 1123"):
        unfreeze.job("Words!", **PARTS)


def test_a_file_is_loaded(tmp_path):
    job = unfreeze.load(FOLDER / "base.yaml")
    assert isinstance(job, unfreeze.FineTuneJob)
    (tmp_path / "two.yaml").write_text("kind: Pod\n---\nkind: Service\n")
    with pytest.raises(unfreeze.InvalidJob, match="holds 0 objects of kind FineTuneJob, not one"):
        unfreeze.load(tmp_path / "two.yaml")


def test_a_status_becomes_metrics_by_split():
    found = of_status(
        {
            "metadata": {"name": "words"},
            "spec": {"output": {"destination": "pvc://results/run"}},
            "status": {
                "results": {"test.accuracy": 0.9, "validation.accuracy": 0.8, "validation.majority": 0.3},
                "conditions": [{"type": "Useful", "status": "True"}],
            },
        }
    )
    assert found.metrics == {"validation": {"accuracy": 0.8}, "test": {"accuracy": 0.9}}
    assert (found.useful, found.model, found.usage) == (True, None, "")


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(unfreeze.JobFailed, match=r"has no report\.json: the run has not ended well yet"):
        unfreeze.result(tmp_path)
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(unfreeze.JobFailed, match=r"report\.json is no report: another version"):
        unfreeze.result(tmp_path)
    (tmp_path / "report.json").unlink()
    (tmp_path / "report.json").mkdir()
    with pytest.raises(unfreeze.JobFailed, match=r"report\.json cannot be read: "):
        unfreeze.result(tmp_path)


@pytest.mark.parametrize("name", ["gone.yaml", ".", "base.yaml/job.yaml"])
def test_a_file_that_cannot_be_read_is_no_job(tmp_path, name):
    (tmp_path / "base.yaml").touch()
    with pytest.raises(unfreeze.InvalidJob, match="cannot be read: "):
        unfreeze.load(tmp_path / name)


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ("x", "claims are folders by claim"),
        (["x"], "claims are folders by claim"),
        ({"data": None}, "not None for 'data'"),
        ({3: "x"}, "for 3"),
    ],
)
def test_claims_that_are_no_folders_are_said(claims, message):
    job = unfreeze.load(FOLDER / "base.yaml")
    with pytest.raises(TypeError, match=message):
        unfreeze.run(job, claims=claims)


def test_all_names_are_there_and_others_are_not():
    assert {name: getattr(unfreeze, name) for name in unfreeze.__all__}.keys() <= set(dir(unfreeze))
    with pytest.raises(AttributeError, match="no attribute 'jobs'"):
        _ = unfreeze.jobs


@pytest.mark.slow
def test_importing_it_imports_nothing_heavy():
    program = (
        "import sys, unfreeze\n"
        "print([name for name in sys.modules if name in ('pydantic', 'torch', 'kubernetes', 'yaml', 'click')])\n"
        "unfreeze.job, unfreeze.submit, unfreeze.run\n"
        "print([name for name in sys.modules if name in ('torch', 'kubernetes', 'unfreeze_trainer', 'kopf')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n[]\n"
