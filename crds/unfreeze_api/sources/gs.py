"""Objects of Google Cloud Storage."""

from __future__ import annotations

from unfreeze_api.sources.base import Access
from unfreeze_api.sources.bucket import source

ACCESS = Access(
    scheme="gs",
    endpoint="STORAGE_EMULATOR_HOST",
    elsewhere=(
        "CLOUD_STORAGE_EMULATOR_ENDPOINT",
        "CLOUD_STORAGE_TESTBENCH_ENDPOINT",
        "GOOGLE_CLOUD_UNIVERSE_DOMAIN",
    ),
    needed=("GOOGLE_SERVICE_ACCOUNT_KEY",),
)
SOURCE = source(
    ACCESS,
    form="gs://BUCKET/KEY",
    about="in a bucket of Google Cloud Storage",
    bucket="[a-z0-9][a-z0-9._-]*[a-z0-9]",
    order=5,
)
