"""What the chart's test follows: a job to its end, or to where only another spec would help."""

import pytest
from click.testing import CliRunner

from unfreeze_operator import follow

REFUSED = {"phase": "Failed", "failure": {"reason": "Refused", "message": "not allowed here: runtimeClassName"}}
ENDED = {"phase": "Succeeded", "completionTime": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("states", "code", "said"),
    [
        ([{}, {"phase": "Pending"}, REFUSED], 1, "not allowed here: runtimeClassName"),
        ([{"phase": "Running"}, ENDED], 0, "Succeeded"),
        ([{"phase": "Running"}], 1, "ns/job has not ended after 0.5 s"),
    ],
    ids=["refused", "ended", "neither"],
)
def test_a_job_that_is_refused_is_not_waited_for(monkeypatch, states, code, said):
    left = list(states)

    class Api:
        def __init__(self, *_):
            pass

        async def __aenter__(self):
            return self

        async def __aexit__(self, *_):
            pass

        async def get(self, _):
            return {"status": left.pop(0) if len(left) > 1 else left[0]}

    async def load():
        return None

    monkeypatch.setattr(follow, "Api", Api)
    monkeypatch.setattr(follow.connection, "load", load)
    done = CliRunner().invoke(follow.main, ["ns", "job", "--timeout=0.5", "--pause=0.01"])
    assert done.exit_code == code
    assert said in done.output
