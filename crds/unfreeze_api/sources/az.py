"""Blobs of Azure Blob Storage."""

from __future__ import annotations

from unfreeze_api.sources.base import Access
from unfreeze_api.sources.bucket import source

ACCESS = Access(
    scheme="az",
    endpoint="AZURE_STORAGE_ENDPOINT",
    needed=("AZURE_STORAGE_ACCOUNT_NAME",),
    optional=("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN"),
)
SOURCE = source(
    ACCESS,
    form="az://CONTAINER/KEY",
    about="in a container of Azure Blob Storage",
    bucket="[a-z0-9][a-z0-9-]*[a-z0-9]",
    order=6,
)
