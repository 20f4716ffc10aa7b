"""What the operator's process imports, and what each connection keeps: memory that it has from its first moment on."""

import asyncio
import asyncio.sslproto
import json
import ssl
import subprocess
import sys

import pytest

from unfreeze_operator.cluster.connection import TLS_BUFFER

SCRIPT = """
import json, sys
import unfreeze_operator.main
from unfreeze_operator.cluster import connection
own = sorted({name.partition(".")[0] for name in sys.modules})
import kubernetes.config  # all of it, by its full name, is there still
from kubernetes import client
print(json.dumps([own, connection.client.Configuration.__module__, client.V1Pod.__name__, callable(kubernetes.config.load_config)]))
"""


@pytest.mark.slow
def test_of_the_package_kubernetes_only_the_configuration_is_imported():
    ran = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    own, configuration, pod, whole = json.loads(ran.stdout)
    assert {"kubernetes", "kopf", "aiohttp"} <= set(own)
    assert not {"requests", "oauthlib", "google", "cryptography", "urllib3", "websocket"} & set(own), "28 MiB"
    assert (configuration, pod, whole) == ("kubernetes.aio.client.configuration", "V1Pod", True)


def test_a_connection_keeps_no_more_than_two_records_of_tls():
    async def buffered() -> int:
        loop, context = asyncio.get_running_loop(), ssl.create_default_context()
        return len(asyncio.sslproto.SSLProtocol(loop, asyncio.Protocol(), context, None)._ssl_buffer)

    assert asyncio.run(buffered()) == TLS_BUFFER == 2 * 16 * 1024, "asyncio's own is 256 KiB, sixty times"
