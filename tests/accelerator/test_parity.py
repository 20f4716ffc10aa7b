"""What an accelerator trains is what a loop by hand on the CPU trains; it takes over a CPU's run, and hands it back."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from tests.accelerator import on_device
from tests.trainer import engine_group
from tests.trainer.engine_group import BY_SHARE, CASES, ENGINES, MATRIX, OFFLOADED, job_of, task_of
from tests.trainer.reference import before_and_after

pytestmark = pytest.mark.accelerator

# Adam divides a gradient by its own size, so that rounding becomes a part of the learning rate: bounds are parts of the largest
# change that any weight has made. In the reduced types the product itself is rounded, to 8 bits or 11.
EXACT, REDUCED = 1e-3, 0.2
DROPS = ("dropout-bfloat16",)  # lots are drawn on the device: other ones than on the CPU


def _cases():
    for engine, case in MATRIX:
        if not case.endswith(DROPS) and engine not in OFFLOADED:
            yield engine, case
    yield from ((engine, "gradual") for engine in OFFLOADED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    engine_group.write_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def reference(folder):
    """A function that returns a case's weights before the training and after it, of one process on the CPU."""

    @cache
    def by_hand(case, ranks):
        job = job_of(case, "DDP", folder)
        return before_and_after(job, task_of(case, job), ranks=ranks)

    return by_hand


@pytest.mark.parametrize(("engine", "case"), list(_cases()))
def test_engine_agrees_with_the_cpu(ranks, reference, folder, engine, case):
    seen = ranks.call(on_device.run_case, case, engine, folder)
    assert {each["device"] for each in seen} == {"cuda" if torch.cuda.is_available() else "cpu"}
    assert len({tuple(each["checksums"].tolist()) for each in seen}) == 1
    start, end = reference(case, len(seen) if case.endswith(BY_SHARE) else 1)
    moved = max(float((end[name] - start[name]).detach().abs().max()) for name in end if end[name].is_floating_point())
    bound = moved * (REDUCED if CASES[case][1].get("precision", "Float32") != "Float32" else EXACT)
    for name, ours in seen[0]["weights"].items():
        if torch.equal(end[name], start[name]):
            assert torch.equal(ours, start[name]), f"frozen {name} has moved"
        assert torch.allclose(ours, end[name], rtol=0, atol=bound), (name, (ours - end[name]).abs().max(), moved)


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_that_are_never_finite_end_the_job(ranks, folder, engine):
    for said, moved in ranks.call(engine_group.diverged_case, engine, folder):
        assert said.startswith("NonFiniteGradients: phase all: 20 steps in a row")
        assert moved is False


@pytest.mark.parametrize("engine", ["DDP", "FSDP", "ZeRO-0"])
def test_a_step_waits_for_nothing(ranks, folder, engine):
    assert not any(ranks.call(on_device.waits_case, engine, folder))


@pytest.mark.parametrize("engine", ["DDP", "FSDP", "ZeRO-2"])
def test_a_run_goes_from_the_cpu_to_the_accelerator_and_back(tmp_path, engine):
    """Position, order of samples and counters are kept, and the weights are those of a run that stayed on the CPU."""
    moved = [on_device.part_of_a_run(tmp_path / "moved", engine, device) for device in ("cpu", "cuda", "cpu")]
    stayed = [on_device.part_of_a_run(tmp_path / "stayed", engine, "cpu") for _ in range(3)]
    for there, here in zip(moved, stayed, strict=True):
        assert there["state"] == here["state"]
        assert there["samples"] == here["samples"]
        largest = max(float(tensor.abs().max()) for tensor in here["weights"].values())
        for name, tensor in here["weights"].items():
            assert torch.allclose(there["weights"][name], tensor, rtol=0, atol=EXACT * largest), name
