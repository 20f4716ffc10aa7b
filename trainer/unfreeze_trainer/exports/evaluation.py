"""evaluation.json and label-issues.csv: what the predictions of a run say in detail."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from unfreeze_api.contracts.evaluation import Evaluation

if TYPE_CHECKING:
    from unfreeze_trainer.runs.generation import Generation

FILE, ISSUES = "evaluation.json", "label-issues.csv"


def write_evaluation(run_folder: Path, generation: Generation) -> Evaluation | None:
    """Write both files of a run whose predictions are there; return what they say, None without predictions."""
    from unfreeze_trainer.exports.figures import evaluate, files
    from unfreeze_trainer.exports.label_issues import write_issues

    found = files(run_folder)
    evaluation = evaluate(found)
    if evaluation is None:
        return None
    issues = generation.aside(ISSUES)
    count = write_issues(issues, found)
    generation.commit(issues, run_folder / ISSUES)
    evaluation = evaluation.model_copy(update={"probable_label_errors": count})
    aside = generation.aside(FILE)
    aside.write_text(evaluation.to_json(indent=1) + "\n", encoding="utf-8")
    generation.commit(aside, run_folder / FILE)
    return evaluation


def read_evaluation(run_folder: Path) -> Evaluation | None:
    """Return what the predictions of a run say; None where that is not known, as of a run of an earlier version."""
    try:
        return Evaluation.read((run_folder / FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def use_of(evaluation: Evaluation | None) -> dict[str, Any]:
    """Return what the validation data say of how to use a model: temperature of its logits, threshold of each label."""
    if evaluation is None or "validation" not in evaluation.splits:
        return {}
    chosen = {one.label: one.threshold for one in evaluation.splits["validation"].classes if one.threshold is not None}
    heat = {} if evaluation.temperature is None else {"temperature": evaluation.temperature}
    return heat | ({"thresholds": chosen} if chosen else {})
