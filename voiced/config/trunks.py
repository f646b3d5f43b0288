"""Checks of `[sip]` and its trunks, and of `[admin]`."""

from __future__ import annotations

import importlib.util
import ipaddress
from typing import Final

from voiced.config.addresses import (
    is_loopback,
    parse_host,
    parse_listen,
    parse_rtp_ports,
    parse_sip_listen,
)
from voiced.config.files import readable
from voiced.config.findings import Findings
from voiced.config.listeners import check_certificate
from voiced.config.mistakes import KeyPath
from voiced.config.types import Config, Trunk

__all__ = ["check_sip"]

_LISTEN: Final = ("sip", "listen")
_RESERVED: Final = frozenset({"twilio"})  # `--trunk twilio` is the REST API


def check_sip(config: Config, findings: Findings) -> None:
    """Check SIP's addresses, ports and trunks, and the operators' listener."""
    _admin(config, findings)
    transports = _listen(config, findings)
    _ports(config, findings)
    sip = config.sip
    if sip.advertise is not None:
        _host(sip.advertise, ("sip", "advertise"), findings)
    check_certificate("sip", sip.tls_cert, sip.tls_key, findings)
    if "tls" in transports and sip.tls_cert is None and findings.sound(("sip",)):
        remedy = "add tls_cert and tls_key to [sip]"
        findings.mistake(_LISTEN, "tls:// needs a certificate", remedy)
    if sip.ca_file is not None:
        readable(sip.ca_file, ("sip", "ca_file"), findings)
    names: set[str] = set()
    users: set[str] = set()
    for index, trunk in zip(_places(findings, len(sip.trunk)), sip.trunk, strict=True):
        path: KeyPath = ("sip", "trunk", index)
        if trunk.name in names or trunk.name in _RESERVED:
            message = f'the name "{trunk.name}" is taken'
            findings.mistake((*path, "name"), message, "give each trunk a name of its own")
        names.add(trunk.name)
        if trunk.authenticate and trunk.username is not None:
            if trunk.username in users:
                message = f'another trunk authenticates as "{trunk.username}"'
                remedy = "give each a username of its own: it tells them apart"
                findings.mistake((*path, "username"), message, remedy)
            users.add(trunk.username)
        _trunk(trunk, path, findings)
    if sip.listen and not sip.trunk:
        remedy = "add a [[sip.trunk]] with name and host"
        findings.warn(_LISTEN, "no trunk is named, so every call is refused", remedy)
    elif sip.trunk and not sip.listen:
        message = "is not reachable: [sip] listens nowhere"
        findings.mistake(("sip", "trunk", 0), message, 'add listen = ["udp://0.0.0.0:5060"]')


def _places(findings: Findings, whole: int) -> list[int]:
    """Where the trunks stand in the file: blocks that lack something are no longer among them."""
    table = findings.document.data.get("sip", {})
    written = table.get("trunk", []) if isinstance(table, dict) else []
    keys = ("name", "host")
    found = [
        index
        for index, block in enumerate(written)
        if isinstance(block, dict)
        and all(isinstance(block.get(key), str) and block[key] for key in keys)
    ]
    return found if len(found) == whole else list(range(whole))


def _listen(config: Config, findings: Findings) -> set[str]:
    transports: set[str] = set()
    for index, text in enumerate(config.sip.listen):
        try:
            transport, host, _ = parse_sip_listen(text)
            if not _is_address(host):
                raise ValueError("does not name an IP address")
        except ValueError as error:
            message = f'"{text}" {error}'
            remedy = 'write "udp://0.0.0.0:5060", "tcp://[::]:5060" or "tls://0.0.0.0:5061"'
            findings.mistake((*_LISTEN, index), message, remedy)
        else:
            transports.add(transport)
    return transports


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _ports(config: Config, findings: Findings) -> None:
    path: KeyPath = ("sip", "rtp_ports")
    text = config.sip.rtp_ports
    try:
        low, high = parse_rtp_ports(text)
    except ValueError as error:
        findings.mistake(path, f'"{text}" {error}', 'write e.g. "20000-29999"')
        return
    pairs = (high + 1) // 2 - (low + 1) // 2
    calls = config.daemon.max_calls
    if config.sip.listen and pairs < calls and findings.sound(("daemon",)):
        message = f"has room for {max(pairs, 0)} calls, and max_calls is {calls}"
        findings.mistake(path, message, "two ports to a call: make the range wider")


def _host(text: str, path: KeyPath, findings: Findings) -> None:
    try:
        parse_host(text)
    except ValueError:
        message = f'"{text}" is neither a host name nor an address'
        findings.mistake(path, message, 'write e.g. "sip.example.net" or "192.0.2.7:5060"')


def _trunk(trunk: Trunk, path: KeyPath, findings: Findings) -> None:
    _host(trunk.host, (*path, "host"), findings)
    if trunk.proxy is not None:
        _host(trunk.proxy, (*path, "proxy"), findings)
    for index, network in enumerate(trunk.allow):
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            message = f'"{network}" is neither an IP address nor a network'
            remedy = 'write e.g. "192.0.2.7" or "198.51.100.0/24"'
            findings.mistake((*path, "allow", index), message, remedy)
    has_password = any(
        findings.written((*path, key)) for key in ("password", "password_file", "password_env")
    )
    wants = [key for key in ("register", "authenticate") if getattr(trunk, key)]
    if wants and trunk.username is None:
        findings.mistake((*path, wants[0]), "there is no username", "add username to this trunk")
    if wants and not has_password and findings.sound((*path,)):
        remedy = "add password_file to this trunk"
        findings.mistake((*path, wants[0]), "there is no password", remedy)
    elif has_password and not wants and trunk.username is None:
        findings.mistake((*path,), "has a password and no username", "add username to this trunk")
    if not trunk.codecs and findings.sound((*path, "codecs")):
        findings.mistake((*path, "codecs"), "is empty", 'write codecs = ["pcmu", "pcma"]')
    for wanted, module, extra, key in (
        (trunk.srtp != "off", "pylibsrtp", "srtp", "srtp"),
        ("g722" in trunk.codecs, "G722", "g722", "codecs"),
    ):
        if wanted and importlib.util.find_spec(module) is None:
            remedy = f"install it: pip install 'voiced[{extra}]'"
            findings.mistake((*path, key), f"needs the package {module}", remedy)
    if trunk.srtp != "off" and trunk.transport != "tls":
        message = "the keys of the audio travel in the open: transport is not tls"
        findings.warn((*path, "srtp"), message, 'set transport = "tls" on this trunk')


def _admin(config: Config, findings: Findings) -> None:
    path: KeyPath = ("admin", "listen")
    text = config.admin.listen
    if text.startswith("unix:"):
        if not text[5:].startswith("/") or len(text[5:].encode()) > 100:
            message = f'"{text}" is not the absolute path of a socket'
            findings.mistake(path, message, 'write e.g. "unix:/run/voiced/admin.sock"')
        return
    try:
        host, _ = parse_listen(text)
    except ValueError as error:
        remedy = 'write "127.0.0.1:9180" or "unix:/run/voiced/admin.sock"'
        findings.mistake(path, f'"{text}" {error}', remedy)
        return
    if not is_loopback(host):
        message = "others reach this address, where tokens and metrics travel unencrypted"
        findings.warn(path, message, "listen on 127.0.0.1 or a unix socket, behind a TLS proxy")
