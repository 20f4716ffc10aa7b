"""A CRD that is upgraded before the operator: the specs of jobs have fields that the operator does not know."""

from tests.operator.simulation import Simulation

NEWER = {"training": {"fresh": 0.5}, "distribution": {"fresh": {"deep": 1}}}


def condition(sim, type_):
    return next(one for one in sim.status["conditions"] if one["type"] == type_)


def test_jobs_that_have_begun_go_on():
    sim, phases = Simulation(nodes=2), []

    def reached(phase):
        phases.append(sim.status.get("phase"))
        return phases[-1] == phase

    sim.until(lambda: reached("Running"))
    before = sim.server.get_now("configmaps", "job-job")["data"]
    sim.change(**NEWER)
    sim.restart()
    for _ in range(3):
        sim.round()
    sim.change(runPolicy={"suspend": True})
    sim.until(lambda: reached("Suspended"))
    sim.change(runPolicy={"suspend": False})
    sim.until(lambda: reached("Running"))
    for raw in sim.running():
        sim.end(raw, 0)
    sim.until(lambda: reached("Succeeded"))
    assert "Failed" not in phases
    assert sim.server.get_now("configmaps", "job-job")["data"] == before
    sim.change(runPolicy={"ttlSecondsAfterFinished": 5})
    sim.until(lambda: sim.job is None)


def test_jobs_that_have_not_wait_for_an_operator_that_knows_all_of_them():
    sim = Simulation()
    sim.change(**NEWER)
    for _ in range(3):
        sim.round()
    assert "phase" not in sim.status
    running = condition(sim, "Running")
    assert (running["status"], running["reason"]) == ("False", "InvalidSpec")
    assert "spec.training.fresh: Extra inputs are not permitted" in running["message"]
    assert "this operator is older than the CRD: upgrade it" in running["message"]
    assert condition(sim, "Reconciling")["status"] == "True"
    assert [call for call in sim.server.calls if call.verb == "create"] == []
    sim.change(training={"fresh": None}, distribution={"fresh": None})
    sim.until(lambda: sim.status.get("phase") == "Running")


def test_a_spec_that_is_wrong_besides_is_refused():
    sim = Simulation()
    sim.change(training={"fresh": 1, "epochs": -1})
    sim.until(lambda: sim.status.get("phase") == "Failed", most=3)
    assert sim.status["failure"]["reason"] == "InvalidSpec"
    assert "spec.training.epochs: Input should be greater than 0" in sim.status["failure"]["message"]
