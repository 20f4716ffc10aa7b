"""What pods have for sources that come over the network: a folder, credentials, and where other jobs use that folder a container of
its own that fills it. Pure.

What is fetched into a claim is read by other jobs of the namespace. There the trainer's container sees it read-only, and has no
credentials; the container `fetcher` writes there, from the platform's image, whatever image the job trains in.
"""

from __future__ import annotations

from collections.abc import Sequence

from unfreeze_api.contracts.progress import (
    CLAIM_FOLDER,
    CONFIG_FOLDER,
    FETCHER_ENV,
    JOB_FILE_ENV,
    OFFLINE_ENV,
    SOURCES_FOLDER,
)
from unfreeze_api.resolve import claims, schemes
from unfreeze_api.sources import ACCESS
from unfreeze_api.spec.job import FineTuneJobSpec
from unfreeze_operator.objects.resources import FETCHER, JOB_FILE, Manifest
from unfreeze_operator.settings.options import TrainerImage
from unfreeze_operator.settings.sources import Sources, cache_claim, offline_schemes

SOURCES_SIZE = "200Gi"
"""Of the folder for what is brought over the network; the trainer looks first whether its disk has room."""
FETCHER_FOLDER = "/mnt/fetcher"
"""Where trainer and fetcher meet."""
_REQUESTS = {"cpu": "100m", "memory": "256Mi"}
_LIMITS = {"cpu": "1", "memory": "2Gi", "ephemeral-storage": "2Gi"}
"""Of the fetcher, where the trainer has limits too: a pod keeps its class of quality, and a quota of such limits takes it."""
_TMP_SIZE = "1Gi"
PASSED = frozenset(
    {
        *(name for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY") for name in (proxy, proxy.lower())),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_REGION", "AWS_DEFAULT_REGION"),
        *("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT", "HF_HUB_DISABLE_XET"),
    }
)
"""Variables of a job that its fetcher has too: how servers are reached. Others could change what runs in it."""


def fetches_apart(spec: FineTuneJobSpec, sources: Sources) -> bool:
    """Return whether a job's pods have a fetcher: where it fetches into a claim that other jobs use."""
    used = schemes(spec)
    return bool(set(used) - set(offline_schemes(spec, sources))) and cache_claim(spec, sources) is not None


def volumes(spec: FineTuneJobSpec, sources: Sources) -> list[Manifest]:
    """Return where a job keeps what it fetches, beside the claims that it reads."""
    if not schemes(spec):
        return []
    claim, found = cache_claim(spec, sources), list[Manifest]()
    if claim is None:
        found.append({"name": "sources", "emptyDir": {"sizeLimit": SOURCES_SIZE}})
    elif claim not in claims(spec):
        read_only = {} if fetches_apart(spec, sources) else {"readOnly": True}
        found.append({"name": "sources", "persistentVolumeClaim": {"claimName": claim, **read_only}})
    if fetches_apart(spec, sources):
        found += [
            {"name": "fetcher", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "fetcher-tmp", "emptyDir": {"sizeLimit": _TMP_SIZE}},
        ]
    return found


def trainer_mounts(spec: FineTuneJobSpec, sources: Sources) -> list[Manifest]:
    """Return how the trainer's container sees what is fetched: read-only on a claim."""
    if not schemes(spec):
        return []
    found = [_mount(spec, sources, read_only=cache_claim(spec, sources) is not None)]
    return [*found, *([_meeting()] if fetches_apart(spec, sources) else [])]


def trainer_env(spec: FineTuneJobSpec, sources: Sources) -> list[Manifest]:
    """Return what the trainer's container has to know of its job's sources."""
    found = _secrets(spec, sources)
    if fetches_apart(spec, sources):
        found = [_address()]
    if offline := [scheme for scheme in offline_schemes(spec, sources) if scheme in schemes(spec)]:
        found.append({"name": OFFLINE_ENV, "value": ",".join(offline)})
    return found


def kept_from_trainer(spec: FineTuneJobSpec, sources: Sources) -> frozenset[str]:
    """Return the variables of a job that its fetcher alone has."""
    names = (name for scheme in schemes(spec) for name in ACCESS[scheme].credentials)
    return frozenset(names) if fetches_apart(spec, sources) else frozenset()


def fetcher(
    spec: FineTuneJobSpec, image: TrainerImage, sources: Sources, env: Sequence[Manifest], security: Manifest
) -> list[Manifest]:
    """Return the container that fetches, where there is one. Kubernetes starts it before the trainer's, and ends it after it.

    Parameters
    ----------
    env
        Variables of the job's template.
    security
        Context of its containers.
    """
    if not fetches_apart(spec, sources):
        return []
    taken = kept_from_trainer(spec, sources) | PASSED
    own = [variable for variable in env if variable["name"] in taken]
    given = {variable["name"] for variable in own}
    limits = spec.distribution.resources_per_node.limits or {}
    bounds = {name: limit for name, limit in _LIMITS.items() if name in limits}
    home = {"HOME": "/tmp", "TMPDIR": "/tmp"}  # noqa: S108 - an emptyDir
    return [
        {
            "name": FETCHER,
            "image": image.name,
            "command": ["python", "-m", "unfreeze_trainer.sources"],
            "restartPolicy": "Always",  # it runs beside the trainer, and no pod waits for its end
            "env": [
                {"name": JOB_FILE_ENV, "value": f"{CONFIG_FOLDER}/{JOB_FILE}"},
                _address(),
                *({"name": name, "value": value} for name, value in home.items()),
                *(variable for variable in _secrets(spec, sources) if variable["name"] not in given),
                *own,
            ],
            "resources": {"requests": _REQUESTS | bounds, **({"limits": bounds} if bounds else {})},
            "securityContext": security,
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [
                {"name": "job", "mountPath": CONFIG_FOLDER, "readOnly": True},
                {"name": "fetcher-tmp", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir
                _meeting(),
                # The certificate of an authority may lie on one.
                *(
                    {"name": f"claim-{number}", "mountPath": f"{CLAIM_FOLDER}/{claim}", "readOnly": True}
                    for number, claim in enumerate(claims(spec))
                ),
                _mount(spec, sources, read_only=False),
            ],
        }
    ]


def _mount(spec: FineTuneJobSpec, sources: Sources, *, read_only: bool) -> Manifest:
    """Return a mount of what is fetched: many drivers attach a claim to a pod once, so one that it has serves for both."""
    claim, names = cache_claim(spec, sources), list(claims(spec))
    volume = f"claim-{names.index(claim)}" if claim in names else "sources"
    return {"name": volume, "mountPath": SOURCES_FOLDER, **({"readOnly": True} if read_only else {})}


def _meeting() -> Manifest:
    return {"name": "fetcher", "mountPath": FETCHER_FOLDER}


def _address() -> Manifest:
    return {"name": FETCHER_ENV, "value": f"{FETCHER_FOLDER}/socket"}


def _secrets(spec: FineTuneJobSpec, sources: Sources) -> list[Manifest]:
    """Return the keys of the sources' Secret that their clients know, and where the platform says that hubs and stores are.

    A pod waits for the keys that a hub or a store cannot do without; where sources are of several schemes, each may do without.
    """
    used = [scheme for scheme in schemes(spec) if scheme not in offline_schemes(spec, sources)]
    found: list[Manifest] = []
    if spec.sources and spec.sources.secret_ref:
        for access in (ACCESS[scheme] for scheme in used):
            for key in access.credentials:
                optional = {"optional": True} if key in access.optional or len(used) > 1 else {}
                reference = {"name": spec.sources.secret_ref.name, "key": key, **optional}
                found.append({"name": key, "valueFrom": {"secretKeyRef": reference}})
    places = ((scheme, sources[scheme].endpoint) for scheme in used if scheme in sources)
    return [*found, *({"name": ACCESS[scheme].endpoint, "value": endpoint} for scheme, endpoint in places if endpoint)]
