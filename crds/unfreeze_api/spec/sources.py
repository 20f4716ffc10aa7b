"""How models and data that lie at a hub are brought: with which credentials."""

from __future__ import annotations

from unfreeze_api.grammar.model import Model
from unfreeze_api.spec.template import LocalObjectReference


class SourcesSpec(Model):
    """How sources of a hub are brought."""

    secret_ref: LocalObjectReference | None = None
    """Secret with the hub's token under HF_TOKEN, for gated and private repositories; no process that trains has it. Default:
    none."""
