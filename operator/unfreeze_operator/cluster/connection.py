"""Where the API server is and who we are to it, from a kubeconfig or from the pod: one answer for kopf and for us."""

from __future__ import annotations

import asyncio.sslproto
import os
import ssl
from pathlib import Path

import kopf
from kubernetes.aio import client, config
from kubernetes.aio.config import ConfigException

__all__ = ["SERVICE_ACCOUNT", "ConfigException", "for_kopf", "load", "own_namespace", "ssl_context", "token_header"]

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds what its account was given."""
TLS_BUFFER = 32 * 1024
"""Bytes that each TLS connection keeps for what comes in; TLS itself hands over 16 KiB at a time."""

# asyncio keeps 256 KiB for each, and asks for as many anew whenever it reads: among many new jobs there are sixty connections.
asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER


def own_namespace() -> str:
    """Return the namespace of the pod that this process runs in; nothing outside of the cluster."""
    file = SERVICE_ACCOUNT / "namespace"
    return file.read_text(encoding="utf-8").strip() if file.exists() else ""


async def load() -> client.Configuration:
    """Read KUBECONFIG, or what the pod's service account was given, or the person's default kubeconfig.

    Exec plugins of kubeconfigs run each time, so calling this again renews an expired token.

    Raises
    ------
    kubernetes.aio.config.ConfigException
        There is neither.
    """
    configuration = client.Configuration()
    in_pod = "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ
    if in_pod:
        config.load_incluster_config(client_configuration=configuration)
    else:
        await config.load_kube_config(client_configuration=configuration)
    return configuration


async def token_header(configuration: client.Configuration) -> dict[str, str]:
    """Return the Authorization header; a rotated token file is read again by the library."""
    token = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
    return {"Authorization": token} if token else {}


def ssl_context(configuration: client.Configuration) -> ssl.SSLContext:
    """Return the TLS settings."""
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    return context


async def for_kopf(configuration: client.Configuration) -> kopf.ConnectionInfo:
    """Return the same for kopf's own client."""
    header = (await token_header(configuration)).get("Authorization", "")
    scheme, _, token = header.partition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert and Path(configuration.ssl_ca_cert),
        insecure=not configuration.verify_ssl,
        certificate_path=configuration.cert_file and Path(configuration.cert_file),
        private_key_path=configuration.key_file and Path(configuration.key_file),
        scheme=scheme or None,
        token=token or None,
        proxy_url=configuration.proxy,
    )
