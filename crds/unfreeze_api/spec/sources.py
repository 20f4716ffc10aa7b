"""How models and data that lie at a hub or in an object store are brought: with which credentials."""

from __future__ import annotations

from unfreeze_api.grammar.fields import Name
from unfreeze_api.grammar.model import Model
from unfreeze_api.spec.feature_cache import FeatureCacheSpec
from unfreeze_api.spec.template import LocalObjectReference


class SourcesSpec(Model):
    """How sources of a hub or an object store are brought."""

    secret_ref: LocalObjectReference | None = None
    """Secret with credentials, of which each scheme takes its own: for hf:// the hub's token under HF_TOKEN, for s3://
    AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, perhaps AWS_SESSION_TOKEN, for gs:// the JSON key of a service account under
    GOOGLE_SERVICE_ACCOUNT_KEY, for az:// AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN; no
    process that trains has them. Default: none."""
    cache_claim: Name | None = None
    """Volume claim that keeps what is fetched, for this and other jobs of the namespace, whose pods can all write to it. What is there
    is checked by its hashes and not fetched again; pods that need the same wait for the one that fetches. Default: the platform's,
    else none, and each pod fetches for itself."""
    feature_cache: FeatureCacheSpec | None = None
    """Where what frozen blocks make of each sample is kept for later jobs. Default: nowhere."""
    offline: bool | None = None
    """Whether only what cacheClaim has is used, no network is opened, and the job ends as NotCached where something lacks. Default:
    false. A scheme that the platform has offline stays so, whatever is said here."""
