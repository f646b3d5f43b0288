"""TLS for SIP: contexts, and whom a certificate speaks for (RFC 5922)."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

__all__ = ["client_context", "names_server", "server_context"]


def server_context(cert: Path, key: Path) -> ssl.SSLContext:
    """For listening, from PEM files. Raises OSError, ssl.SSLError (they do not match)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert, key)
    return context


def client_context(
    ca: Path | None = None, cert: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """For connecting: trusts `ca` (PEM), or what the system trusts; `cert` and `key` show us.

    The name is checked by `names_server`, not by OpenSSL, which knows nothing of SIP URIs.
    Raises OSError, ssl.SSLError.
    """
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    if cert is not None:
        context.load_cert_chain(cert, key)
    return context


def names_server(certificate: Mapping[str, Any], name: str) -> bool:
    """Whether a verified certificate (`SSLSocket.getpeercert`) speaks for `name`.

    RFC 5922 section 7.1: SIP URIs without a user part, else DNS names; for an address its IP entry.
    Section 7.2 forbids wildcards, yet large providers have nothing else, so that the leftmost
    label may be one, as RFC 6125 section 6.4.3 has it. The Common Name counts for nothing.
    """
    name = name.lower().rstrip(".")
    alternatives = certificate.get("subjectAltName", ())
    try:
        address = ip_address(name)
    except ValueError:
        pass
    else:
        return any(
            kind == "IP Address" and _is_same_address(value, address)
            for kind, value in alternatives
        )
    domains = [
        value[4:].lower()
        for kind, value in alternatives
        if kind == "URI" and value[:4].lower() == "sip:" and "@" not in value
    ]
    if domains:
        return name in domains
    return any(
        kind == "DNS" and _matches(value.lower().rstrip("."), name) for kind, value in alternatives
    )


def _is_same_address(text: str, address: object) -> bool:
    try:
        return ip_address(text.strip()) == address
    except ValueError:
        return False


def _matches(pattern: str, name: str) -> bool:
    if not pattern.startswith("*."):
        return pattern == name
    label, _, rest = name.partition(".")
    return bool(label) and "." in rest and rest == pattern[2:]
