"""Affinity of the pods, with the fields and the rules of any pod's.

Typed to its last level: what a schema does not know can be of any size and depth, and is not compared when the object
changes.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from unfreeze_api.grammar.fields import LabelKey, LabelValue, Name, NamespaceName
from unfreeze_api.grammar.model import Model, Rule
from unfreeze_api.grammar.selectors import LabelSelector


class NodeSelectorRequirement(Model):
    """One requirement on a node's label."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.operator in ['Exists', 'DoesNotExist']) == (!has(self.values) || self.values.size() == 0)",
            "values are for In, NotIn, Gt and Lt; Exists and DoesNotExist have none",
            ".values",
        ),
        Rule(
            "!(self.operator in ['Gt', 'Lt']) || (has(self.values) && self.values.size() == 1"
            " && self.values.all(value, value.matches('^[0-9]{1,18}$')))",
            "Gt and Lt need one value, a whole number in quotes",
            ".values",
        ),
    )

    key: LabelKey
    """Key of the label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    """How the label is compared with the values."""
    values: list[LabelValue] | None = Field(default=None, max_length=16)
    """Values to compare with; none for Exists and DoesNotExist, one whole number for Gt and Lt."""


class NodeFieldRequirement(Model):
    """One requirement on a node's name."""

    key: Literal["metadata.name"]
    """Field of the node: metadata.name is the only one."""
    operator: Literal["In", "NotIn"]
    """How the name is compared with the value."""
    values: list[Name] = Field(min_length=1, max_length=1)
    """The name of one node."""


class NodeSelectorTerm(Model):
    """Nodes that meet all of these requirements; without any, no node."""

    match_expressions: list[NodeSelectorRequirement] | None = Field(default=None, max_length=16)
    """Requirements on the node's labels."""
    match_fields: list[NodeFieldRequirement] | None = Field(default=None, max_length=16)
    """Requirements on the node's name."""


class NodeSelector(Model):
    """Nodes that meet at least one of the terms."""

    node_selector_terms: list[NodeSelectorTerm] = Field(min_length=1, max_length=16)
    """The terms; one of them has to hold."""


class PreferredSchedulingTerm(Model):
    """Nodes that are preferred, and how much."""

    weight: int = Field(ge=1, le=100)
    """Weight that a node gets when it meets the preference."""
    preference: NodeSelectorTerm
    """What the node has to meet."""


class NodeAffinity(Model):
    """Which nodes the pods may run on, or should."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    """Nodes that the pods need."""
    preferred_during_scheduling_ignored_during_execution: list[PreferredSchedulingTerm] | None = Field(
        default=None, max_length=16
    )
    """Nodes that are preferred; the sum of the weights decides."""


class PodAffinityTerm(Model):
    """Pods, and what nodes have to share with theirs."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.labelSelector) || (!has(self.matchLabelKeys) && !has(self.mismatchLabelKeys))",
            "matchLabelKeys and mismatchLabelKeys need labelSelector",
            ".labelSelector",
        ),
        Rule(
            "!has(self.matchLabelKeys) || !has(self.mismatchLabelKeys)"
            " || self.matchLabelKeys.all(key, !(key in self.mismatchLabelKeys))",
            "no key can stand in both matchLabelKeys and mismatchLabelKeys",
            ".matchLabelKeys",
        ),
        *(
            Rule(
                f"!has(self.{field}) || !has(self.labelSelector) || self.{field}.all(key,"
                " !(has(self.labelSelector.matchLabels) && key in self.labelSelector.matchLabels)"
                " && !(has(self.labelSelector.matchExpressions)"
                " && self.labelSelector.matchExpressions.exists(one, one.key == key)))",
                f"no key of {field} can stand in labelSelector too",
                f".{field}",
            )
            for field in ("matchLabelKeys", "mismatchLabelKeys")
        ),
    )

    topology_key: LabelKey
    """Key of the node's label whose value is compared, like kubernetes.io/hostname."""
    label_selector: LabelSelector | None = None
    """Pods by their labels. Without it no pod is meant."""
    namespaces: list[NamespaceName] | None = Field(default=None, max_length=16)
    """Namespaces of those pods. Without it and namespaceSelector, the job's own namespace."""
    namespace_selector: LabelSelector | None = None
    """Namespaces of those pods by their labels, besides those named; an empty selector means all of them."""
    match_label_keys: list[LabelKey] | None = Field(default=None, max_length=16)
    """Keys of labels whose values the pods must share with the job's."""
    mismatch_label_keys: list[LabelKey] | None = Field(default=None, max_length=16)
    """Keys of labels whose values the pods must not share with the job's."""


class WeightedPodAffinityTerm(Model):
    """Pods whose neighbourhood counts, and how much."""

    weight: int = Field(ge=1, le=100)
    """Weight that a node gets when the term holds."""
    pod_affinity_term: PodAffinityTerm
    """The pods, and what nodes have to share with theirs."""


class PodAffinity(Model):
    """Which pods the job's pods must run beside, or should."""

    required_during_scheduling_ignored_during_execution: list[PodAffinityTerm] | None = Field(
        default=None, max_length=16
    )
    """Pods that the job's pods need to be beside; all of the terms have to hold."""
    preferred_during_scheduling_ignored_during_execution: list[WeightedPodAffinityTerm] | None = Field(
        default=None, max_length=16
    )
    """Pods that the job's pods should be beside; the sum of the weights decides."""


class PodAntiAffinity(Model):
    """Which pods the job's pods must keep away from, or should."""

    required_during_scheduling_ignored_during_execution: list[PodAffinityTerm] | None = Field(
        default=None, max_length=16
    )
    """Pods that the job's pods must not be beside; all of the terms have to hold."""
    preferred_during_scheduling_ignored_during_execution: list[WeightedPodAffinityTerm] | None = Field(
        default=None, max_length=16
    )
    """Pods that the job's pods should not be beside; the sum of the weights decides."""


class Affinity(Model):
    """Where the pods run, by nodes and by other pods."""

    node_affinity: NodeAffinity | None = None
    """Which nodes the pods may run on, or should."""
    pod_affinity: PodAffinity | None = None
    """Which pods the job's pods must run beside, or should."""
    pod_anti_affinity: PodAntiAffinity | None = None
    """Which pods the job's pods must keep away from, or should."""
