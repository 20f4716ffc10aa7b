"""Where the splits of a data set lie that a source names by its repository, or by a config: by its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unfreeze_api.sources.hf import parse
from unfreeze_trainer.data.label_names import names_in_file
from unfreeze_trainer.errors import JobError
from unfreeze_trainer.sources.card import CARD, MAX_BYTES, files_of
from unfreeze_trainer.sources.selection import config_of

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import Dataset, ResolvedJob
    from unfreeze_trainer.sources.pins import Pin

_SCHEME = "hf://datasets/"


def with_splits(job: ResolvedJob, pins: Mapping[str, Pin]) -> ResolvedJob:
    """Return a job whose sources at a hub that name no files lie where their splits do.

    Parameters
    ----------
    job
        Its sources are here.
    pins
        Of the sources, with the files of each.

    Raises
    ------
    JobError
        InvalidData: there is no such split.
    """
    if not any(source.startswith(_SCHEME) for source in pins):
        return job
    return job.with_data(lambda name, dataset: _split(dataset, name, pins))


def _split(dataset: Dataset, role: str, pins: Mapping[str, Pin]) -> Dataset:
    pin = pins.get(dataset.source)
    if pin is None or not dataset.source.startswith(_SCHEME):
        return dataset
    reference = parse(dataset.source.removeprefix("hf://"))
    if reference.path in pin.files or reference.is_pattern:
        return dataset
    field = "evidence.forgetting.anchor" if role == "anchor" else f"data.{role}"
    where = f"spec.{field}.source {dataset.source}"
    role = "train" if role == "anchor" else role  # what a base was trained on, most likely
    root = dataset.path.removesuffix(f"/{reference.path}") if reference.path else dataset.path
    found = config_of([*pin.files], lambda: _card(root) if CARD in pin.files else "", reference.path, where)
    if found is None:
        return dataset
    config, split = found
    files = files_of(config, split, role, where)
    names = {**names_in_file(Path(root, files[0])), **config.label_names}
    return dataset.model_copy(update={"path": _path(root, files, where), "label_names": names or None})


def _card(root: str) -> str:
    with Path(root, CARD).open("rb") as file:
        return file.read(4 * MAX_BYTES).decode(errors="replace")


def _path(root: str, files: Sequence[str], where: str) -> str:
    """Return a path that stands for some files."""
    if len(files) == 1:
        return f"{root}/{files[0]}"
    if odd := next((name for name in files if any(sign in name for sign in "{},")), None):
        raise JobError(
            "InvalidData", f"{where}: the file {odd!r} has braces or commas in its name: name files by a pattern with *"
        )
    return f"{root}/{{{','.join(files)}}}"
