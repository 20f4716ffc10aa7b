"""What the pods get: resources, placement, image, environment. The rules are those of any pod, checked early."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from unfreeze_api.grammar.fields import EnvName, Image, LabelKey, LabelValue, Name, Resources, SecretKey, keyed
from unfreeze_api.grammar.model import Model, Rule
from unfreeze_api.spec.affinity import Affinity


class ResourcesSpec(Model):
    """Resources of each pod, as in any container."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.limits) || self.limits.all(name, !name.contains('/')"
            " || string(self.limits[name]).matches('^[0-9]+$'))",
            "accelerators and other resources with a / in their name come in whole numbers",
            ".limits",
        ),
        Rule(
            "!has(self.requests) || self.requests.all(name, !(name.contains('/') || name.startsWith('hugepages-'))"
            " || (has(self.limits)"
            " && name in self.limits && string(self.requests[name]) == string(self.limits[name])))",
            "accelerators, other resources with a / in their name and hugepages must stand in limits; they may stand in"
            " requests with the same number",
            ".requests",
        ),
        Rule(
            "!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits)"
            " || !isQuantity(string(self.requests[name])) || !isQuantity(string(self.limits[name]))"
            " || quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) <= 0)",
            "nothing can be requested above its limit",
            ".requests",
        ),
        Rule(
            "!((has(self.requests) && self.requests.exists(name, name.startsWith('hugepages-')))"
            " || (has(self.limits) && self.limits.exists(name, name.startsWith('hugepages-'))))"
            " || (has(self.requests) && ('cpu' in self.requests || 'memory' in self.requests))"
            " || (has(self.limits) && ('cpu' in self.limits || 'memory' in self.limits))",
            "hugepages need cpu or memory beside them",
        ),
    )

    requests: Resources | None = None
    """What the scheduler reserves."""
    limits: Resources | None = None
    """What a pod may use at most; accelerators such as nvidia.com/gpu stand here."""


class SecretKeySelector(Model):
    """A key of a Secret in the job's namespace."""

    name: Name
    """Name of the Secret."""
    key: SecretKey
    """Key in the Secret."""
    optional: bool = False
    """Whether the pod may start without it."""


class EnvSource(Model):
    """Where an environment variable's value comes from."""

    secret_key_ref: SecretKeySelector
    """A key of a Secret."""


class EnvVar(Model):
    """One environment variable."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.value) != has(self.valueFrom)", "set exactly one of value and valueFrom"),
        Rule(
            "!self.name.startsWith('UNFREEZE_') && !(self.name in ['POD_NAME', 'POD_IP', 'JOB_COMPLETION_INDEX'])",
            "POD_NAME, POD_IP, JOB_COMPLETION_INDEX and names that start with UNFREEZE_ are set by the operator",
            ".name",
        ),
    )

    name: EnvName
    """Name of the variable."""
    value: str | None = Field(default=None, max_length=4096)
    """Its value. Never a secret: use valueFrom."""
    value_from: EnvSource | None = None
    """Where its value comes from."""


class Toleration(Model):
    """A taint that the pods tolerate, as in any pod."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.operator == 'Exists' || (has(self.key))", "without key set operator Exists"),
        Rule(
            "!has(self.value) || self.value == '' || self.operator == 'Equal'", "value needs operator Equal", ".value"
        ),
        Rule(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "tolerationSeconds needs effect NoExecute",
            ".tolerationSeconds",
        ),
    )

    key: LabelKey | None = None
    """Key of the taint; none tolerates every key."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """How key and value are compared."""
    value: LabelValue | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; none tolerates every effect."""
    toleration_seconds: int | None = Field(default=None, ge=0, le=315360000)
    """How long a NoExecute taint is tolerated."""


class LocalObjectReference(Model):
    """An object in the job's namespace."""

    name: Name
    """Name of the object."""


_RESERVED = (
    "key.startsWith('unfreeze.dev/') || key.startsWith('batch.kubernetes.io/')"
    " || key in ['app.kubernetes.io/managed-by', 'job-name', 'controller-uid']"
)
_LABELS = Rule(
    f"!self.exists(key, {_RESERVED})",
    "unfreeze.dev/..., batch.kubernetes.io/..., app.kubernetes.io/managed-by, job-name and controller-uid are set by the"
    " operator and the Job controller",
)
_ANNOTATIONS = Rule(
    "!self.exists(key, key.startsWith('unfreeze.dev/') || key.startsWith('batch.kubernetes.io/')"
    " || key.startsWith('container.apparmor.security.beta.kubernetes.io/'))",
    "unfreeze.dev/... and batch.kubernetes.io/... are set by the operator and the Job controller, and the profile of"
    " AppArmor is the cluster's to choose",
)


class TemplateSpec(Model):
    """What the pods get besides: placement, image, environment."""

    image: Image | None = None
    """Trainer image. Default: the operator's."""
    image_pull_secrets: list[LocalObjectReference] | None = Field(
        default=None,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    """Secrets that the image is pulled with."""
    node_selector: dict[str, LabelValue] | None = Field(default=None, max_length=64, json_schema_extra=keyed())
    """Labels that a node must have."""
    tolerations: list[Toleration] | None = Field(default=None, max_length=64)
    """Taints that the pods tolerate."""
    affinity: Affinity | None = None
    """Where the pods run, by nodes and by other pods, as in any pod."""
    priority_class_name: Name | None = None
    """Priority class of the pods."""
    scheduler_name: Name | None = None
    """Scheduler that places the pods."""
    runtime_class_name: Name | None = None
    """Runtime class of the pods."""
    env: list[EnvVar] | None = Field(
        default=None,
        max_length=128,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    """Environment variables of the trainer."""
    labels: dict[str, LabelValue] | None = Field(default=None, max_length=64, json_schema_extra=keyed(_LABELS))
    """Labels of the pods, beside the operator's."""
    # All of them together stay below the 256 KiB that an object's annotations may have, whatever their characters.
    annotations: dict[str, Annotated[str, Field(max_length=2048)]] | None = Field(
        default=None, max_length=24, json_schema_extra=keyed(_ANNOTATIONS)
    )
    """Annotations of the pods."""
