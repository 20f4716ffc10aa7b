"""The NetworkPolicy of the gang: made before its pods, and repaired when somebody changed it."""

from __future__ import annotations

import json

from unfreeze_operator.manifests.children import network_policy
from unfreeze_operator.objects.actions import Create, Patch
from unfreeze_operator.objects.packing import unpack
from unfreeze_operator.objects.resources import NETWORK_POLICIES
from unfreeze_operator.observed.context import Context, Verdict
from unfreeze_operator.settings.sources import opened


def check(context: Context) -> Verdict | None:
    """Create or repair the NetworkPolicy; one that the operator's options have changed is brought up to date too."""
    view = context.children.network_policy
    manifest = network_policy(context.job, context.network, opened(context.spec, context.sources))
    if view is None:
        return Verdict("Creating", "the NetworkPolicy is created", (Create(NETWORK_POLICIES, manifest),))
    found, wanted = json.loads(unpack(view.shape)), manifest["spec"]
    if found == wanted:
        return None
    # A merge patch keeps what it does not name: a foreign part of the selector has to be taken out by name.
    selector = found["podSelector"] or {}
    labels = {**dict.fromkeys(selector.get("matchLabels", ())), **wanted["podSelector"]["matchLabels"]}
    change = {"spec": {**wanted, "podSelector": {**dict.fromkeys(selector), "matchLabels": labels}}}
    return Verdict("Repairing", "the NetworkPolicy is brought up to date", (Patch(NETWORK_POLICIES, view, change),))
