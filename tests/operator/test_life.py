"""The life of a job on a real control plane: run, succeed, fail, suspend, resume, change, expire, delete."""

import pytest

from tests.operator.world import condition

pytestmark = pytest.mark.cluster


def test_the_whole_way(operator, world):
    world.create(nodes=2, fake={"holdAt": 5})
    held = world.wait(lambda status: status.get("progress", {}).get("step") == 5)
    assert held["phase"] == "Running"
    assert held["nodes"]["desired"] == 2
    assert condition(held, "Running")["reason"] == "PodsRunning"
    assert held["summary"] == {"progress": "50% (2/2)", "metric": "accuracy 0.500", "eta": "5s", "checkpoint": ""}
    world.go()
    end = world.wait_phase("Succeeded")
    assert end["results"] == {"test.accuracy": 0.93}
    assert end["progress"]["percent"] == 100
    assert end["phases"][0]["name"] == "head"
    assert end["checkpoint"]["step"] == 10
    assert end["startTime"] <= end["completionTime"]
    assert condition(end, "Complete")["status"] == "True"
    assert condition(end, "Running")["status"] == "False"
    assert "failure" not in end
    assert world.events() == ["Created", "Running", "Succeeded"]
