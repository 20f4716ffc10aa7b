"""What a base is called where others can load it: the repository of a hub, and not the folder of a cache that holds its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unfreeze_api.sources import hf, timm
from unfreeze_trainer.models.folders import revision

if TYPE_CHECKING:
    from unfreeze_api.contracts.resolved import ResolvedModel

_PARSERS = {hf.MODELS.scheme: hf.parse, timm.SOURCE.scheme: timm.parse}


class Home(NamedTuple):
    """Where a base is loaded from."""

    name: str
    """OWNER/NAME at a hub, or a folder."""
    revision: str | None = None
    """Commit at the hub; None of a folder."""


def home_of(model: ResolvedModel) -> Home:
    """Return where others load the base of a job from."""
    if model.stage_path:
        return Home(model.stage_path)
    scheme, _, rest = model.source.partition("://")
    found = _PARSERS[scheme](rest) if scheme in _PARSERS else None
    commit = revision(model.path)
    return Home(found.repository, commit) if found and commit else Home(model.path)


def name_base(folder: Path, home: Home) -> None:
    """Have the configuration of an adapter name its base as others can load it."""
    for file in (folder / "adapter_config.json", folder / "bottleneck_config.json"):
        if home.revision is None or not file.is_file():
            continue
        written = json.loads(file.read_text())
        places = {name: home.name for name in _PLACES if written.get(name) is not None}
        file.write_text(
            json.dumps(written | places | {"revision": home.revision}, indent=2, sort_keys=True, ensure_ascii=False)
            + "\n"
        )


_PLACES = ("base_model_name_or_path", "tokenizer_name_or_path")


def cached(name: str, revision: str | None) -> Path | None:
    """Return the folder of a repository that this machine's cache of the hub has; None where it has none."""
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json", cache_dir=constants.HF_HUB_CACHE, revision=revision)
    except HFValidationError:  # a folder, or nothing at all
        return None
    return Path(found).parent if isinstance(found, str) else None
