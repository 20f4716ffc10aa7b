"""Repositories of a hub that huggingface_hub talks to: models, and files of data sets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from unfreeze_api.sources.base import SEGMENT, Access, Needs, Places, Source

_REPOSITORY = "[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*"
_NAME = "[A-Za-z0-9_][A-Za-z0-9._+-]*"
# Of revisions with a slash a path can only follow the hub's own, as in huggingface_hub's HfFileSystem.
_SPECIAL = "refs/pr/[0-9]+|refs/convert/[A-Za-z0-9_]+"
_REVISION = f"(@{_NAME}(/{_NAME})*)?"
_OF_MODEL = f"{_REPOSITORY}{_REVISION}"
NAME_OF_MODEL = f"[A-Za-z0-9][A-Za-z0-9._-]*{_REVISION}"
"""Regular expression of a model whose owner is known."""
_OF_DATA = rf"datasets/{_REPOSITORY}(@({_SPECIAL}|{_NAME}))?(/{SEGMENT})*"
_PARTS = re.compile(
    rf"(?P<data>datasets/)?(?P<repository>{_REPOSITORY})"
    rf"(?:@(?P<revision>(?(data)(?:{_SPECIAL}|{_NAME})|.*)))?(?:/(?P<path>.*))?"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """What a source of the hub names."""

    kind: Literal["model", "dataset"]
    """Kind of the repository, in huggingface_hub's words."""
    repository: str
    """OWNER/NAME."""
    revision: str
    """Branch, tag or commit; main where none is named."""
    path: str
    """File, folder or pattern of files below the repository's root, or CONFIG or CONFIG/SPLIT; empty for all of it."""

    @property
    def folder(self) -> str:
        """Folder of the repository in a cache of huggingface_hub."""
        return f"{self.kind}s--{self.repository.replace('/', '--')}"

    @property
    def is_pattern(self) -> bool:
        """Whether the path stands for several files."""
        return any(sign in self.path for sign in "*?[{")

    def at(self, cache: str, revision: str) -> str:
        """Return where a cache of huggingface_hub has it at a revision."""
        root = f"{cache}/{self.folder}/snapshots/{quote(revision, safe='')}"
        return f"{root}/{self.path}" if self.path else root


def parse(rest: str) -> Reference:
    """Return what stands behind hf:// in its parts; ValueError of what does not fit its pattern."""
    found = _PARTS.fullmatch(rest)
    if found is None:
        raise ValueError(f"hf://{rest} names no repository: {MODELS.form}, or {DATASETS.form}")
    kind: Literal["model", "dataset"] = "dataset" if found["data"] else "model"
    return Reference(kind, found["repository"], found["revision"] or "main", found["path"] or "")


def _locate(rest: str, places: Places) -> str:
    """Return where the trainer's cache has it; in place of a branch or tag the trainer puts the commit that it stands for."""
    reference = parse(rest)
    return reference.at(places.sources, reference.revision)


def _needs(_: str) -> Needs:
    return Needs(schemes=("hf",))


ACCESS = Access(scheme="hf", endpoint="HF_ENDPOINT", elsewhere=("HUGGINGFACE_CO_STAGING",), needed=("HF_TOKEN",))
MODELS = Source(
    scheme="hf",
    form="hf://OWNER/NAME[@REVISION]",
    about="that a repository of a hub holds",
    pattern=_OF_MODEL,
    excluded=("datasets/", "spaces/"),
    holds=("Model",),
    locate=_locate,
    needs=_needs,
    access=ACCESS,
    order=2,
)
DATASETS = Source(
    scheme="hf",
    form="hf://datasets/OWNER/NAME[@REVISION][/PATH]",
    about="in a data set of a hub",
    pattern=_OF_DATA,
    holds=("Data",),
    locate=_locate,
    needs=_needs,
    access=ACCESS,
    order=2,
)
SOURCES = (MODELS, DATASETS)
