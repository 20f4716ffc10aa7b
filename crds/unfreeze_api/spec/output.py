"""Where a run writes, and what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unfreeze_api.grammar.model import Formerly, Model
from unfreeze_api.sources import forms
from unfreeze_api.spec.source import OutputSource

ExportKind = Literal["Model", "Adapter", "Merged"]
Inputs = Literal["Omit", "Include"]


class PredictionsSpec(Model):
    """What stands in the predictions of validation and test data, beside row, label, prediction and probabilities."""

    inputs: Inputs | None = None
    """Include: the texts too, or the paths of the files. Omit: only which row of the data it is, since texts may be private.
    Default: Omit."""


class OutputSpec(Model):
    """Where the run's folder lies, and what the finished model is written as."""

    destination: OutputSource = Field(
        description=f"Folder for checkpoints, the exported model and report.json: {forms('Output')}; on a volume claim, one that all"
        " pods can write to. A folder of the run's own: no source may contain it or lie in it, and a run starts in none that"
        " holds model/, checkpoints/, predictions/, report.json or another output that another hand has made."
    )
    exports: Annotated[list[ExportKind] | None, Formerly("export")] = Field(
        default=None, min_length=1, max_length=2, json_schema_extra={"x-kubernetes-list-type": "set"}
    )
    """What is written: Model (without an adapter: a folder that plain transformers or timm loads), Adapter (the
    adapter alone, for PEFT) or Merged (the adapter folded into its base). Default: Model; with an adapter: Adapter, or
    Merged if its baseWeights is ByStrategy."""
    predictions: PredictionsSpec | None = None
    """Of the finished model, in predictions/ of the run's folder."""
