"""What a hub's client says goes wrong, in the words of jobs: what it is, and what to do."""

from __future__ import annotations

import re
from contextlib import suppress
from difflib import get_close_matches
from urllib.parse import urlsplit

from huggingface_hub import HfApi
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from unfreeze_api.sources import hf, timm
from unfreeze_api.sources.hf import Reference
from unfreeze_trainer.errors import JobError, RetryError, one_line, some_of
from unfreeze_trainer.sources.bringer import causes
from unfreeze_trainer.sources.wanted import Wanted

_UNAUTHORIZED, _FORBIDDEN = 401, 403
_HOW = "in HF_TOKEN: on a cluster by the Secret in spec.sources.secretRef, here by the environment or `hf auth login`"


def named(wanted: Wanted) -> tuple[str, Reference]:
    """Return what messages about a source start with, and its parts."""
    scheme, _, rest = wanted.source.partition("://")
    return f"{wanted.field} {wanted.source}", (timm.parse if scheme == timm.SOURCE.scheme else hf.parse)(rest)


def explained(error: Exception, wanted: Wanted, api: HfApi) -> JobError | RetryError | None:
    """Return an error of the client in the words of jobs; None for one that is no word of hub or network."""
    where = named(wanted)[0]
    found = list(causes(error))
    if refused := next(filter(None, (_refused(cause, wanted, api) for cause in found)), None):
        return refused
    if any(isinstance(cause, HfHubHTTPError | LocalEntryNotFoundError) or _is_network(cause) for cause in found):
        return RetryError(
            "HubUnreachable",
            f"{where}: {ENDPOINT} cannot be reached, or breaks off: {one_line(found[-1], 300)}. Look at network, proxy"
            " (HTTPS_PROXY) and mirror (HF_ENDPOINT), or use what is cached: --offline",
        )
    return None


def _refused(cause: BaseException, wanted: Wanted, api: HfApi) -> JobError | None:
    """Return what the hub has refused, None where it has refused nothing."""
    where, reference = named(wanted)
    link = f"{ENDPOINT}/{'datasets/' if reference.kind == 'dataset' else ''}{reference.repository}"
    if isinstance(cause, GatedRepoError):
        return JobError(
            "Gated",
            f"{where}: the repository is gated: accept its conditions at {link}, and give a token of that account {_HOW}",
        )
    if isinstance(cause, RepositoryNotFoundError):
        return JobError("NotFound", f"{where}: the hub has no {link}{_near(reference, api)}")
    if isinstance(cause, RevisionNotFoundError):
        return JobError("RevisionNotFound", f"{where}: {link} has no {reference.revision}{_refs(reference, api)}")
    # Elsewhere it is an address that was good for some minutes, and the next one is good again.
    if (
        isinstance(cause, HfHubHTTPError)
        and cause.response.status_code in (_UNAUTHORIZED, _FORBIDDEN)
        and urlsplit(str(cause.response.url)).netloc == urlsplit(ENDPOINT).netloc
    ):
        said = f" ({cause.server_message})" if cause.server_message else ""
        return JobError(
            "Unauthorized",
            f"{where}: the hub {ENDPOINT} refuses the token{said}: give one that is valid and may read {link}, {_HOW}",
        )
    return None


def _near(reference: Reference, api: HfApi) -> str:
    """Return names like one that there is not, if the hub gives them, and what else may be the matter."""
    owner, _, name = reference.repository.partition("/")
    listed = api.list_models if reference.kind == "model" else api.list_datasets
    found: list[str] = []
    with suppress(Exception):  # they only help
        found = [one.id for one in listed(author=owner, limit=500)] or [one.id for one in listed(search=name, limit=50)]
    near = get_close_matches(reference.repository, found, n=3, cutoff=0.6) or found[:3]
    meant = f"; did you mean {' or '.join(near)}?" if near else ";"
    return f"{meant} If it is private, give a token that may read it, {_HOW}"


def _refs(reference: Reference, api: HfApi) -> str:
    found: list[str] = []
    with suppress(Exception):
        refs = api.list_repo_refs(reference.repository, repo_type=reference.kind)
        found = [one.name for one in (*refs.branches, *refs.tags)]
    short = (
        " A commit is written with all of its 40 digits." if re.fullmatch("[0-9a-f]{4,39}", reference.revision) else ""
    )
    return f"; there are {some_of(found)}.{short}" if found else f".{short}"


def _is_network(error: BaseException) -> bool:
    """Return whether an error is one of the client's HTTP library, of a socket, or a file that came in another size."""
    if type(error).__module__.startswith("httpx") or isinstance(error, ConnectionError | TimeoutError):
        return True
    return isinstance(error, OSError) and "Consistency check failed" in str(error)
