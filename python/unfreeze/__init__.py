"""Transfer learning from Python: build a job, run it here or in a cluster, look at what came out.

    import unfreeze

    job = unfreeze.job("trec", model="models/minilm", task="TextClassification", train="trec.csv")
    print(unfreeze.run(job).metrics["validation"])

Nothing heavy is imported before it is used: `run` needs the trainer extra, `submit` and what follows it the python extra.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unfreeze.building import InvalidJob, job, load, manifest
    from unfreeze.cluster import Submitted, delete, logs, submit, wait
    from unfreeze.local import run
    from unfreeze.results import JobFailed, Result, result
    from unfreeze_api.contracts.report import Report
    from unfreeze_api.job import FineTuneJob

__all__ = [
    "FineTuneJob",
    "InvalidJob",
    "JobFailed",
    "Report",
    "Result",
    "Submitted",
    "delete",
    "job",
    "load",
    "logs",
    "manifest",
    "result",
    "run",
    "submit",
    "wait",
]

_PLACES = {
    **dict.fromkeys(("InvalidJob", "job", "load", "manifest"), "unfreeze.building"),
    **dict.fromkeys(("Submitted", "delete", "logs", "submit", "wait"), "unfreeze.cluster"),
    **dict.fromkeys(("JobFailed", "Result", "result"), "unfreeze.results"),
    "run": "unfreeze.local",
    "FineTuneJob": "unfreeze_api.job",
    "Report": "unfreeze_api.contracts.report",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
