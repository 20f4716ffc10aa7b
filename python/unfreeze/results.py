"""What became of a job: metrics, report, and where the model lies."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from unfreeze_api.commands import explained
from unfreeze_api.contracts.report import GAIN_HIGH, GAIN_LOW, MAJORITY, Report

_FIGURES = (MAJORITY, GAIN_LOW, GAIN_HIGH)
"""What stands among a status' results and is no metric."""


class JobFailed(RuntimeError):  # noqa: N818 - as condition Failed
    """A job that has ended otherwise than well: the message says why, and what to do.

    Attributes
    ----------
    reason
        One CamelCase word, such as InvalidData.
    """

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(f"{reason}: {message}" if message else reason)


@dataclass(frozen=True)
class Result:
    """A job that has succeeded."""

    name: str
    """Of the job."""
    metrics: dict[str, dict[str, float]]
    """Of the finished model, by split: `metrics["test"]["accuracy"]`."""
    useful: bool | None = None
    """Whether the model is better than always guessing one class; None where that is not known, or has no meaning."""
    report: Report | None = field(default=None, repr=False)
    """The whole report, of a run whose folder is at hand."""
    folder: Path | None = None
    """Of the run, where it is at hand."""
    destination: str = ""
    """Where the run's folder lies, as the job says."""

    @property
    def model(self) -> Path | None:
        """Folder of the finished model, the first of the exports; None where the run's folder is not at hand."""
        return self.folder / self.report.exports[0].folder if self.folder and self.report else None

    @property
    def usage(self) -> str:
        """Lines of Python that load the model with the plain library and predict; empty where the folder is not at hand."""
        return self.report.exports[0].usage if self.report else ""


def result(folder: str | PathLike[str]) -> Result:
    """Return what a finished run has left in its folder.

    Raises
    ------
    JobFailed
        NoReport: the run has not ended well yet, this is not a run's folder, or its report cannot be read.
    """
    path = Path(folder)
    try:
        report = Report.read((path / "report.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise JobFailed(
            "NoReport", f"{path} has no report.json: the run has not ended well yet, or this is not a run's folder"
        ) from None
    except OSError as error:
        raise JobFailed("NoReport", f"{path / 'report.json'} cannot be read: {explained(error)}") from error
    except ValueError as error:
        raise JobFailed(
            "NoReport",
            f"{path / 'report.json'} is no report: another version of Unfreeze wrote it, or somebody has changed it",
        ) from error
    return Result(
        name=report.job.rpartition("/")[2],
        metrics={"validation": dict(report.results.validation), "test": dict(report.results.test)},
        useful=report.usefulness.better if report.usefulness else None,
        report=report,
        folder=path,
        destination=str(path),
    )


def of_status(job: dict[str, Any]) -> Result:
    """Return what the status of a job that has succeeded says."""
    status = job.get("status") or {}
    metrics: dict[str, dict[str, float]] = {"validation": {}, "test": {}}
    for key, value in (status.get("results") or {}).items():
        split, _, name = key.partition(".")
        if key not in _FIGURES and name:
            metrics.setdefault(split, {})[name] = value
    useful = next((one["status"] for one in status.get("conditions", ()) if one["type"] == "Useful"), None)
    return Result(
        name=job["metadata"]["name"],
        metrics=metrics,
        useful={"True": True, "False": False}.get(str(useful)),
        destination=job["spec"]["output"]["destination"],
    )
