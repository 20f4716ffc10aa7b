"""The headless Service: made, and repaired when somebody changed it."""

from __future__ import annotations

from unfreeze_operator.manifests.children import service
from unfreeze_operator.objects.actions import Create, Patch
from unfreeze_operator.objects.resources import SERVICES
from unfreeze_operator.objects.views import selector_of, service_shape
from unfreeze_operator.observed.context import Context, Verdict


def check(context: Context) -> Verdict | None:
    """Create or repair the Service."""
    view = context.children.service
    manifest = service(context.job, context.names.service)
    if view is None:
        return Verdict("Creating", "the Service is created", (Create(SERVICES, manifest),))
    wanted = manifest["spec"]
    if view.shape == service_shape(wanted):
        return None
    # A merge patch keeps what it does not name: a foreign entry of the selector has to be taken out by name.
    selector = {**dict.fromkeys(selector_of(view.shape)), **wanted["selector"]}
    change = {"spec": {**wanted, "selector": selector}}
    return Verdict("Repairing", "the Service is brought up to date", (Patch(SERVICES, view, change),))
