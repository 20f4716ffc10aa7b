"""Objects of Amazon S3, and of what speaks its protocol: Ceph, SeaweedFS, MinIO and others."""

from __future__ import annotations

from unfreeze_api.sources.base import Access
from unfreeze_api.sources.bucket import source

ACCESS = Access(
    scheme="s3",
    endpoint="AWS_ENDPOINT_URL_S3",
    elsewhere=("AWS_ENDPOINT_URL",),
    needed=("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    optional=("AWS_SESSION_TOKEN",),
)
SOURCE = source(
    ACCESS,
    form="s3://BUCKET/KEY",
    about="in a bucket of S3",
    bucket="[a-z0-9][a-z0-9.-]*[a-z0-9]",
    order=4,
)
