"""What the clients of object stores say, in the words of jobs: texts as pyarrow 26 has them."""

import pytest

from unfreeze_trainer.errors import JobError
from unfreeze_trainer.sources.schemes import az, gs, s3

REFUSED = "google::cloud::Status(UNAVAILABLE: Retry policy exhausted, with a last message of PerformWork() - CURL error [7]=Could not connect"
SAID = [
    (s3, OSError("AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7"), "StoreUnreachable"),
    (s3, OSError("AWS Error UNKNOWN (HTTP status 503) during ListObjectsV2 operation: x"), "StoreUnreachable"),
    (
        s3,
        OSError("AWS Error SLOW_DOWN during GetObject operation: Please reduce your request rate."),
        "StoreUnreachable",
    ),
    (s3, OSError("AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation: The bucket does not exist"), "NotFound"),
    (s3, OSError("AWS Error UNKNOWN (HTTP status 301) during HeadObject operation: No response body."), "NotFound"),
    (s3, OSError("AWS Error ACCESS_DENIED during HeadObject operation: No response body."), "Unauthorized"),
    (
        s3,
        OSError("AWS Error UNKNOWN (HTTP status 404) during ListObjectsV2 operation: XAdminUserNotFound"),
        "Unauthorized",
    ),
    (gs, OSError(REFUSED), "StoreUnreachable"),
    (gs, PermissionError("google::cloud::Status(UNAUTHENTICATED: Permanent error"), "Unauthorized"),
    (gs, FileNotFoundError("google::cloud::Status(NOT_FOUND: Permanent error"), "NotFound"),
    (az, OSError("Azure Error: [] Fail to get a new connection for: http://127.0.0.1:9."), "StoreUnreachable"),
    (az, OSError("Azure Error: [ServerBusy] 503 The server is busy."), "StoreUnreachable"),
    (az, OSError("Azure Error: [AuthorizationFailure] 403 Server failed to authenticate the request."), "Unauthorized"),
    (az, OSError("Azure Error: [ContainerNotFound] 404 The specified container does not exist."), "NotFound"),
    (az, Exception("Unexpected character in Base64 encoded string"), "Unauthorized"),
    (az, Exception("Unknown error: St13runtime_error: Unexpected end of Base64 encoded string."), "Unauthorized"),
    (
        gs,
        OSError("google::cloud::Status(INVALID_ARGUMENT: Permanent error: Could not create a OAuth2 access token to"),
        "Unauthorized",
    ),
    (gs, OSError("google::cloud::Status(UNKNOWN: Cannot open credentials file /proc/self/fd/9"), "Unauthorized"),
]


@pytest.mark.parametrize(("scheme", "error", "reason"), SAID)
def test_it_is_told_by_its_reason(scheme, error, reason):
    found = scheme.explain(error, "spec.model.source x://b/k", "b")
    assert found.reason == reason
    assert found.message.startswith("spec.model.source x://b/k: ")


@pytest.mark.parametrize("scheme", [s3, gs, az])
def test_what_is_no_word_of_a_store_is_left(scheme):
    assert scheme.explain(OSError(5, "Input/output error"), "x", "b") is None


@pytest.mark.parametrize("name", ["evil.example/", "me@evil.example", "Account", "a" * 25])
def test_what_is_no_name_of_an_account_leads_nowhere(monkeypatch, name):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", name)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")
    with pytest.raises(JobError, match="must be 3 to 24 lower-case letters and digits"):
        az.connect()
