"""How many workers of a job a machine runs that is no cluster."""

from pathlib import Path

import pytest

from tests.trainer.jobs import make_job
from unfreeze_trainer.commands.machine import accelerators, fitted


def gpus(nodes, each):
    limits = {"nvidia.com/gpu": each}
    return make_job("/m", "/t.csv", distribution={"numNodes": nodes, "resourcesPerNode": {"limits": limits}})


@pytest.mark.parametrize(
    ("present", "workers", "nodes", "each", "said"),
    [
        (0, None, 1, 1, "asks for 16 accelerators, this machine has none: 1 worker on the CPU, with all its threads"),
        (1, None, 1, 1, "this machine has 1: 1 worker (--workers N"),
        (4, None, 1, 4, "this machine has 4: 4 workers (--workers N"),
        (16, None, 2, 8, ""),
        (0, 3, 1, 3, ""),
    ],
)
def test_a_job_for_a_cluster_gets_what_there_is(present, workers, nodes, each, said):
    job, text = fitted(gpus(2, 8), workers=workers, present=present)
    assert (job.distribution.num_nodes, job.distribution.num_proc_per_node) == (nodes, each)
    assert said in text
    assert bool(said) == bool(text)
    if text or workers:
        assert job.distribution.threads_per_proc is None
    assert job.fingerprint() == gpus(2, 8).fingerprint()


def test_a_job_without_accelerators_keeps_its_workers():
    job = make_job("/m", "/t.csv", distribution={"numNodes": 2, "numProcPerNode": 2})
    assert fitted(job, workers=None, present=0) == (job, "")
    assert fitted(job, workers=1, present=0)[0].distribution.world_size == 1


@pytest.mark.parametrize(
    ("environment", "devices", "count"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0,2"}, [], 2),
        ({"CUDA_VISIBLE_DEVICES": ""}, ["/dev/nvidia0"], 0),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ["/dev/nvidia0"], 0),
        ({}, ["/dev/nvidia0", "/dev/nvidia1", "/dev/nvidiactl", "/dev/nvidia-uvm"], 2),
        ({}, ["/dev/dri/renderD128"], 0),
        ({}, ["/dev/kfd", "/dev/dri/renderD128", "/dev/dri/renderD129", "/dev/dri/card0"], 2),
        ({}, [], 0),
    ],
)
def test_accelerators_are_counted_without_torch(environment, devices, count):
    assert accelerators(environment, map(Path, devices)) == count
