"""A FineTuneJob from Python values, judged by the very rules that the API server has."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel

from unfreeze_api.apiserver.validate import InvalidManifest, hints, load_job
from unfreeze_api.commands import explained
from unfreeze_api.contracts.names import API_VERSION, KIND
from unfreeze_api.grammar.one_of import OneOf
from unfreeze_api.grammar.reading import causes
from unfreeze_api.job import FineTuneJob
from unfreeze_api.relative import absolute
from unfreeze_api.spec.adapter import AdapterSpec
from unfreeze_api.spec.data import HeldOutSpec, TaskSpec, TrainSpec
from unfreeze_api.spec.distribution import DistributionSpec
from unfreeze_api.spec.evidence import EvidenceSpec
from unfreeze_api.spec.job import FineTuneJobSpec
from unfreeze_api.spec.model import ModelSpec
from unfreeze_api.spec.output import OutputSpec
from unfreeze_api.spec.run_policy import RunPolicySpec
from unfreeze_api.spec.strategy import StrategySpec
from unfreeze_api.spec.template import TemplateSpec
from unfreeze_api.spec.tracking import TrackingSpec
from unfreeze_api.spec.training import TrainingSpec

Place = str | PathLike[str]
"""A path, which counts from the current folder, or a source such as pvc://CLAIM/PATH."""
Fields = Mapping[str, Any]
"""Fields of a part of the spec, in snake_case or as in a manifest."""


class InvalidJob(ValueError):  # noqa: N818 - it says more than an Error behind it
    """A job that the API server would refuse; the message says which fields are wrong, and what to do."""


def job(
    name: str,
    *,
    model: Place | Sequence[Place] | ModelSpec | Fields,
    task: str | TaskSpec | BaseModel | Fields,
    train: Place | TrainSpec | Fields,
    validation: float | Place | HeldOutSpec | Fields = 0.1,
    test: float | Place | HeldOutSpec | Fields | None = None,
    strategy: str | StrategySpec | BaseModel | Fields = "FeatureExtraction",
    adapter: str | AdapterSpec | BaseModel | Fields | None = None,
    training: TrainingSpec | Fields | None = None,
    output: Place | OutputSpec | Fields | None = None,
    columns: Fields | None = None,
    on_error: Literal["Fail", "Skip"] | None = None,
    namespace: str | None = None,
    distribution: DistributionSpec | Fields | None = None,
    tracking: TrackingSpec | Fields | None = None,
    evidence: EvidenceSpec | Fields | None = None,
    run_policy: RunPolicySpec | Fields | None = None,
    template: TemplateSpec | Fields | None = None,
) -> FineTuneJob:
    """Return a job with every default filled in.

    Each part is what the manifest's field of the same name holds (docs/api.md): a model of the API, which editors complete,
    or a dict. Short forms are noted below.

    Parameters
    ----------
    name
        Of the job.
    model
        Or the folder of the pretrained model; of several, in a list, the job chooses one before it trains.
    task, strategy, adapter
        Or the type alone, such as "LoRA", or the options of a type, such as `LoraSpec(r=8)`.
    train
        Or the file, or the folder of files.
    validation, test
        Or a file or folder, or the share of the training data that is held out.
    training, distribution, tracking, evidence, run_policy, template
        As in the manifest.
    output
        Or the run's folder; NAME-run here where nothing is said.
    columns
        Of the training data, such as `{"text": "question"}`.
    on_error
        As spec.data.onError.
    namespace
        Of the job.

    Raises
    ------
    InvalidJob
        With everything that the API server would say of it.
    TypeError
        A part is nothing that it can be.
    """
    data = {
        "train": _at("train", train) | ({"columns": _fields("columns", columns)} if columns else {}),
        "validation": _held_out("validation", validation),
        "test": None if test is None else _held_out("test", test),
        "on_error": on_error,
    }
    parts = {
        "model": _model(model),
        "task": _one_of("task", TaskSpec, task),
        "data": _given(data),
        "strategy": _one_of("strategy", StrategySpec, strategy),
        "adapter": None if adapter is None else _one_of("adapter", AdapterSpec, adapter),
        "output": _at("output", f"{name}-run" if output is None else output),
    }
    others = {
        "training": training,
        "distribution": distribution,
        "tracking": tracking,
        "evidence": evidence,
        "run_policy": run_policy,
        "template": template,
    }
    given = parts | {key: _fields(key, value) for key, value in others.items() if value is not None}
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    try:
        spec = FineTuneJobSpec.model_validate(_given(given))
    except ValidationError as error:
        _judged({"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": _on_the_wire(given)}, Path())
        raise InvalidJob(f'{KIND} "{name}" is invalid: {causes(error, "spec")}') from error
    dumped = spec.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
    return _judged({"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": dumped}, Path())


def load(file: Place) -> FineTuneJob:
    """Return the one FineTuneJob in a YAML or JSON file; relative paths count from the file's folder.

    Raises
    ------
    InvalidJob
        It cannot be read, it holds none or several, or the API server would refuse it.
    """
    from unfreeze_api.apiserver.manifest import ManifestError, read

    path = Path(file)
    try:
        documents = [document.manifest for document in read(path.read_text(encoding="utf-8-sig"))]
    except OSError as error:
        raise InvalidJob(f"{path} cannot be read: {explained(error)}") from error
    except (ManifestError, UnicodeDecodeError) as error:
        raise InvalidJob(f"{path}: {error}") from error
    found = [document for document in documents if document.get("kind") == KIND]
    if len(found) != 1:
        raise InvalidJob(f"{path} holds {len(found)} objects of kind {KIND}, not one")
    return _judged(found[0], path.parent)


def manifest(job: FineTuneJob) -> dict[str, Any]:
    """Return a job as `kubectl apply` takes it: what was said of it, without defaults."""
    require_job(job)
    found = job.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude_none=True)
    metadata = {
        key: found["metadata"][key]
        for key in ("name", "namespace", "labels", "annotations")
        if key in found["metadata"]
    }
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": found["spec"]}


def require_job(job: FineTuneJob) -> None:
    """Raise TypeError of anything that is no job."""
    if not isinstance(job, FineTuneJob):
        raise TypeError(
            f"a job is what unfreeze.job() returns, or unfreeze.load() of a file, not {job!r:.80} ({type(job).__name__})"
        )


def _judged(document: dict[str, Any], folder: Path) -> FineTuneJob:
    whole = absolute(document, folder)
    try:
        return load_job(whole)
    except InvalidManifest as error:
        raise InvalidJob("\n".join([str(error), *hints(whole, error.causes)])) from error


def _on_the_wire(value: Any) -> Any:
    """Return fields as a manifest has them, for the messages of the API server: it names what exists beside an unknown one."""
    if isinstance(value, Mapping):
        return {
            to_camel(key) if "_" in key else key: _on_the_wire(item) for key, item in value.items() if item is not None
        }
    return value


def _given(fields: Fields) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


def _fields(part: str, value: BaseModel | Fields, others: str = "") -> dict[str, Any]:
    """Return what somebody has set of a part; `others` are its short forms, for the message about anything else."""
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=True)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{part} is {others}a dict of fields or a model of the API, not {value!r} ({type(value).__name__})")


def _at(part: str, value: Place | BaseModel | Fields, others: str = "") -> dict[str, Any]:
    """Return a part of which a path says all that is needed."""
    if not isinstance(value, str | PathLike):
        return _fields(part, value, f"a path, a source, {others}")
    if not fspath(value):
        raise InvalidJob(f"{part} is empty: name a path, or a source such as pvc://CLAIM/PATH")
    return {"destination" if part == "output" else "source": _place(value)}


def _place(value: Place) -> str:
    """Return a source; of a path the one of this machine, from the current folder on."""
    text = fspath(value)
    path = text.removeprefix("file://")
    return text if "://" in path else f"file://{os.path.normpath(Path(path).absolute())}"


def _model(value: Place | Sequence[Place] | BaseModel | Fields) -> dict[str, Any]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return {"candidates": [_at("model", one) for one in value]}
    return _at("model", value, "a list of these to choose from, ")


def _held_out(part: str, value: float | Place | BaseModel | Fields) -> dict[str, Any]:
    return {"fraction": value} if isinstance(value, int | float) else _at(part, value, "a share of the training data, ")


def _one_of(part: str, kinds: type[OneOf], value: str | BaseModel | Fields) -> dict[str, Any]:
    """Return a union from its type alone, from the options of a type, or as it is."""
    if isinstance(value, str):
        return {"type": value}
    if isinstance(value, BaseModel):
        own = next((kind for kind in kinds.kinds if kind.options is type(value)), None)
        return {"type": own.name, own.field: _fields(part, value)} if own else _fields(part, value)
    return _fields(part, value, "a type, ")
