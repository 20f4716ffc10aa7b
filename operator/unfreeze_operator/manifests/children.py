"""The children of a FineTuneJob as manifests: ConfigMap, headless Service, NetworkPolicy, Indexed Job. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from unfreeze_api.contracts.progress import (
    CLAIM_FOLDER,
    CONFIG_FOLDER,
    HTTP_PORT,
    IMAGES_FOLDER,
    JOB_FILE_ENV,
    JOB_UID_ENV,
    ExitCode,
)
from unfreeze_api.resolve import claims, images, rendezvous_port, resolve
from unfreeze_api.sources import oci
from unfreeze_api.spec.job import FineTuneJobSpec
from unfreeze_operator.manifests.deadlines import active_deadline
from unfreeze_operator.manifests.sources import fetcher, fetches_apart, kept_from_trainer, trainer_env, trainer_mounts
from unfreeze_operator.manifests.sources import volumes as source_volumes
from unfreeze_operator.objects.carried import Carried
from unfreeze_operator.objects.resources import (
    CARRIED_ANNOTATION,
    CHILD_JOB_ANNOTATION,
    CONFIG_MAPS,
    CONTAINER,
    CONTENT_HASH_ANNOTATION,
    FINE_TUNE_JOBS,
    JOB_FILE,
    JOB_LABEL,
    JOBS,
    MANAGED_BY_LABEL,
    MANAGER,
    NETWORK_POLICIES,
    PRIORITY_LABEL,
    QUEUE_LABEL,
    SERVICE_ANNOTATION,
    SERVICES,
    SPEC_HASH_ANNOTATION,
    GangNames,
    Manifest,
    Resource,
    child_name,
    named,
)
from unfreeze_operator.objects.views import FineTuneJobView, content_hash
from unfreeze_operator.settings.network import EgressRule, Network, policy_spec
from unfreeze_operator.settings.options import TrainerImage
from unfreeze_operator.settings.prices import NO_PRICES, Prices, price_of
from unfreeze_operator.settings.sources import NOTHING, Sources, cache_claim

USER = 65532
"""User, group and volume group of the trainer: the "nonroot" of distroless images, far from any person's."""
TMP_SIZE = "20Gi"
"""Of /tmp: caches of compilers and libraries. Without a limit one pod could fill its node's disk."""
SHM_SIZE = "16Gi"
"""Of /dev/shm, where the pod has no memory limit, which it counts against."""
GRACE_SECONDS = 120
"""Time between SIGTERM and SIGKILL: enough to write a checkpoint of a large model to a network volume."""

SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
"""Of each container, as the restricted Pod Security standard has it."""

MLFLOW_KEYS = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
WANDB_KEYS = ("WANDB_API_KEY", "WANDB_BASE_URL")
"""The first is needed online."""


def spec_hash(job: FineTuneJobView, spec: FineTuneJobSpec) -> str:
    """Return the hash of what may change while the job is suspended.

    Of what the user wrote, without defaults: a new operator with another default or image must not restart jobs.
    """
    own = spec.model_dump(
        mode="json", include={"distribution", "template", "tracking", "sources", "evidence"}, exclude_defaults=True
    )
    hang, budget = spec.run_policy.hang_timeout_seconds, spec.run_policy.budget
    limit = budget.model_dump(mode="json", exclude_defaults=True) if budget else None
    text = json.dumps([own, job.queue, *([hang] if hang else []), *([limit] if limit else [])], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def config_map(job: FineTuneJobView, spec: FineTuneJobSpec, names: GangNames, prices: Prices = NO_PRICES) -> Manifest:
    """Return the ConfigMap with the resolved job, whose pods meet under these names and cost what the table says."""
    resolved = resolve(
        job.name,
        job.namespace,
        spec,
        rendezvous_host=f"{names.job}-0.{names.service}",
        price=price_of(spec, prices),
        currency=prices.currency,
    )
    text = resolved.to_json(indent=1)
    annotations = {SPEC_HASH_ANNOTATION: spec_hash(job, spec), CONTENT_HASH_ANNOTATION: content_hash(text)}
    written = {SERVICE_ANNOTATION: names.service, CHILD_JOB_ANNOTATION: names.job}
    annotations |= {key: name for key, name in written.items() if name != child_name(job.name)}
    return {**head(job, CONFIG_MAPS, named(CONFIG_MAPS, job.name), annotations=annotations), "data": {JOB_FILE: text}}


def service(job: FineTuneJobView, name: str) -> Manifest:
    """Return the headless Service under whose names the pods find each other."""
    return {
        **head(job, SERVICES, name),
        "spec": {
            "clusterIP": "None",
            # The pods meet before any of them is ready.
            "publishNotReadyAddresses": True,
            "selector": _gang_labels(job),
            "ports": [
                {"name": "rendezvous", "port": rendezvous_port(job.namespace, job.name), "protocol": "TCP"},
                {"name": "http", "port": HTTP_PORT, "protocol": "TCP"},
            ],
        },
    }


def network_policy(job: FineTuneJobView, network: Network, opened: Sequence[EgressRule] = ()) -> Manifest:
    """Return the NetworkPolicy that keeps all but the gang, and who reads its metrics, away from the pods.

    Parameters
    ----------
    opened
        What they may reach besides, for the job's sources.
    """
    return {
        **head(job, NETWORK_POLICIES, named(NETWORK_POLICIES, job.name)),
        "spec": policy_spec(_gang_labels(job), network, opened),
    }


def indexed_job(
    job: FineTuneJobView,
    spec: FineTuneJobSpec,
    image: TrainerImage,
    carried: Carried,
    names: GangNames,
    *,
    sources: Sources = NOTHING,
    pod_group: str = "",
) -> Manifest:
    """Return the Indexed Job, one pod for each node.

    Parameters
    ----------
    image
        Trainer image, and what it is pulled with, when the template names none.
    carried
        Totals of the runs before this Job.
    names
        Of the Job and of the Service.
    sources
        What jobs may read over the network.
    pod_group
        Name of the PodGroup of its pods; nothing for none.
    """
    nodes = spec.distribution.num_nodes
    annotations = {SPEC_HASH_ANNOTATION: spec_hash(job, spec), CARRIED_ANNOTATION: carried.to_json()}
    kueue = {QUEUE_LABEL: job.queue, PRIORITY_LABEL: job.priority_class} if job.queue else {}
    labels = {name: value for name, value in kueue.items() if value}
    return {
        **head(job, JOBS, names.job, labels=labels, annotations=annotations),
        "spec": _without_none(
            completions=nodes,
            parallelism=nodes,
            completionMode="Indexed",
            backoffLimit=spec.run_policy.backoff_limit,
            activeDeadlineSeconds=None if pod_group else active_deadline(spec, carried),
            suspend=spec.run_policy.suspend,
            # A pod that is still going down holds its accelerators and its name: no second one beside it.
            podReplacementPolicy="Failed",
            podFailurePolicy={"rules": _failure_rules()},
            template=_pod_template(job, spec, image, names.service, sources, pod_group=pod_group),
        ),
    }


def _failure_rules() -> list[Manifest]:
    def on_exit(code: ExitCode) -> Manifest:
        return {"containerName": CONTAINER, "operator": "In", "values": [int(code)]}

    return [
        # Evicted or preempted: not the job's fault.
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": on_exit(ExitCode.JOB_ERROR)},
        # Stopped on request, and with a checkpoint written. Where nobody asked, the policy backoff_limit counts it.
        {"action": "Ignore", "onExitCodes": on_exit(ExitCode.STOPPED)},
    ]


def _pod_template(
    job: FineTuneJobView,
    spec: FineTuneJobSpec,
    image: TrainerImage,
    service: str,
    sources: Sources,
    *,
    pod_group: str,
) -> Manifest:
    template = spec.template.model_dump(mode="json", by_alias=True, exclude_none=True)
    claim_names = claims(spec)
    kept = cache_claim(spec, sources) if fetches_apart(spec, sources) else None
    beside = fetcher(spec, image, sources, _user_env(spec), SECURITY)
    own = template.get("imagePullSecrets", [])
    if image.pull_secrets and (
        beside or not own
    ):  # a fetcher has the platform's image, whatever the job's is pulled with
        added = [{"name": name} for name in image.pull_secrets]
        template["imagePullSecrets"] = [*own, *(one for one in added if one not in own)]
    volumes: list[Manifest] = [
        {"name": "job", "configMap": {"name": named(CONFIG_MAPS, job.name)}},
        {"name": "tmp", "emptyDir": {"sizeLimit": TMP_SIZE}},
        # Data loaders hand tensors over in shared memory; the runtime's default of 64 MiB is too small for it.
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _memory(spec) or SHM_SIZE}},
        *(
            {
                "name": f"claim-{number}",
                "persistentVolumeClaim": {"claimName": claim, "readOnly": not written and claim != kept},
            }
            for number, (claim, written) in enumerate(claim_names.items())
        ),
        *source_volumes(spec, sources),
        *(
            {"name": f"image-{number}", "image": {"reference": image, "pullPolicy": "IfNotPresent"}}
            for number, image in enumerate(images(spec))
        ),
    ]
    placement = (
        "nodeSelector",
        "tolerations",
        "affinity",
        "priorityClassName",
        "schedulerName",
        "runtimeClassName",
        "imagePullSecrets",
    )
    return {
        "metadata": {
            "labels": {**template.get("labels", {}), **_gang_labels(job)},
            "annotations": template.get("annotations", {}),
        },
        "spec": {
            "restartPolicy": "Never",
            "subdomain": service,
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "automountServiceAccountToken": False,
            # Variables of every Service in the namespace: thousands of them can keep a process from starting.
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                # Without this every start walks over all files of a volume.
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            **({"initContainers": beside} if beside else {}),
            "containers": [_container(spec, image.name, list(claim_names.items()), sources, uid=job.uid)],
            "volumes": volumes,
            **{name: template[name] for name in placement if name in template},
            **({"schedulingGroup": {"podGroupName": pod_group}} if pod_group else {}),
        },
    }


def _container(
    spec: FineTuneJobSpec, image: str, claim_names: list[tuple[str, bool]], sources: Sources, *, uid: str
) -> Manifest:
    kept = kept_from_trainer(spec, sources)
    user_env = [variable for variable in _user_env(spec) if variable["name"] not in kept]
    # A user without an entry in /etc/passwd, on a read-only root: libraries ask for both a home and a name.
    defaults = {"HOME": "/tmp", "TMPDIR": "/tmp", "USER": MANAGER, "LOGNAME": MANAGER}  # noqa: S108 - an emptyDir
    given = {variable["name"] for variable in user_env}
    credentials = [
        variable for variable in (*_trackers(spec), *trainer_env(spec, sources)) if variable["name"] not in given
    ]
    resources = spec.distribution.resources_per_node.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {
        "name": CONTAINER,
        "image": spec.template.image or image,
        "command": ["unfreeze-trainer"],
        "env": [
            {"name": JOB_FILE_ENV, "value": f"{CONFIG_FOLDER}/{JOB_FILE}"},
            {"name": JOB_UID_ENV, "value": uid},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            *({"name": name, "value": value} for name, value in defaults.items() if name not in given),
            *credentials,
            *user_env,
        ],
        "ports": [{"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 5},
        "resources": resources,
        "securityContext": SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "job", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - an emptyDir
            *(
                {"name": f"claim-{number}", "mountPath": f"{CLAIM_FOLDER}/{claim}", "readOnly": not written}
                for number, (claim, written) in enumerate(claim_names)
            ),
            *trainer_mounts(spec, sources),
            *(
                {"name": f"image-{number}", "mountPath": f"{IMAGES_FOLDER}/{oci.folder(image)}", "readOnly": True}
                for number, image in enumerate(images(spec))
            ),
        ],
    }


def _memory(spec: FineTuneJobSpec) -> str:
    """Return the memory limit of a pod, empty when it has none."""
    limits = spec.distribution.resources_per_node.limits or {}
    return str(limits.get("memory", ""))


def _gang_labels(job: FineTuneJobView) -> dict[str, str]:
    """Return the labels that a job's pods and other children carry, and nothing else does."""
    return {MANAGED_BY_LABEL: MANAGER, JOB_LABEL: child_name(job.name)}


def _user_env(spec: FineTuneJobSpec) -> list[Manifest]:
    return [variable.model_dump(mode="json", by_alias=True, exclude_none=True) for variable in spec.template.env or ()]


def _trackers(spec: FineTuneJobSpec) -> list[Manifest]:
    """Return the keys of the trackers' Secrets that their libraries know, as environment.

    Nothing else of a Secret is taken: a key of another name, such as LD_PRELOAD, would change what runs. A pod waits for
    the keys that Weights & Biases cannot do without; MLflow's may be any of several.
    """
    out: list[Manifest] = []

    def take(secret: str, key: str, *, optional: bool) -> None:
        reference = {"name": secret, "key": key} | ({"optional": True} if optional else {})
        out.append({"name": key, "valueFrom": {"secretKeyRef": reference}})

    mlflow, wandb = (spec.tracking.mlflow, spec.tracking.wandb) if spec.tracking else (None, None)
    if mlflow and mlflow.secret_ref:
        for key in MLFLOW_KEYS:
            take(mlflow.secret_ref.name, key, optional=True)
    if wandb and wandb.secret_ref:
        for key in WANDB_KEYS:
            take(wandb.secret_ref.name, key, optional=key != WANDB_KEYS[0] or wandb.mode == "Offline")
    return out


def head(
    job: FineTuneJobView,
    resource: Resource,
    name: str,
    *,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
) -> Manifest:
    """Return what every child begins with: kind, name, the labels of the gang, and the job as its owner."""
    owner = {
        "apiVersion": FINE_TUNE_JOBS.api_version,
        "kind": FINE_TUNE_JOBS.kind,
        "name": job.name,
        "uid": job.uid,
        "controller": True,
        # True would need the right to update the owner's finalizers.
        "blockOwnerDeletion": False,
    }
    metadata: Manifest = {
        "name": name,
        "namespace": job.namespace,
        "labels": {**_gang_labels(job), **(labels or {})},
        "ownerReferences": [owner],
    }
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}


def _without_none(**fields: Any) -> Manifest:
    return {name: value for name, value in fields.items() if value is not None}
