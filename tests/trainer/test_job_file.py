"""How a trainer takes job.json in: what it ignores is said, what it cannot read is an error of the job."""

import json

import pytest

from tests.trainer.jobs import make_job
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.job_file import load_job

JOB = make_job("/models/base", "/data/train.csv")


@pytest.fixture
def job_file(tmp_path):
    return tmp_path / "job.json"


@pytest.mark.parametrize("say", [True, False])
def test_ignored_fields_are_said_in_one_line(job_file, caplog, say):
    raw = json.loads(JOB.to_json())
    raw["training"]["fresh"], raw["other"] = 1, None
    job_file.write_text(json.dumps(raw))
    assert load_job(job_file, say=say) == JOB
    assert [record.message for record in caplog.records] == [
        f"{job_file} is of a newer operator; ignored, as this version does not know it: training.fresh, other"
    ] * say


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    [
        ('{"schemaVersion": 3}', "UnsupportedJobFile", "it has schemaVersion 3"),
        ("{", "InvalidJob", "not JSON"),
        (None, "InvalidJob", "No such file or directory"),
    ],
)
def test_an_error_names_the_file(job_file, text, reason, message):
    if text is not None:
        job_file.write_text(text)
    with pytest.raises(JobError, match=message) as caught:
        load_job(job_file, say=True)
    assert caught.value.reason == reason
    assert caught.value.message.startswith(str(job_file))
