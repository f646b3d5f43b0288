"""Checks of `[http]`, `[twilio]` and the daemon's folders."""

from __future__ import annotations

import ipaddress
import re
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from voiced.config.addresses import is_loopback, parse_listen
from voiced.config.files import exists, is_folder, readable
from voiced.config.findings import Findings
from voiced.config.mistakes import KeyPath
from voiced.config.types import Config

__all__ = ["check_certificate", "check_listeners"]

_PUBLIC_URL: Final = ("http", "public_url")
_ACCOUNT_SID = re.compile(r"AC[0-9a-fA-F]{32}")


def check_listeners(config: Config, findings: Findings) -> None:
    """Check what carriers reach, and who may."""
    _folders(config, findings)
    public = _listen(config, findings)
    _public_url(config, findings)
    check_certificate("http", config.http.tls_cert, config.http.tls_key, findings)
    for index, network in enumerate(config.http.trusted_proxies):
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            message = f'"{network}" is neither an IP address nor a network'
            path = ("http", "trusted_proxies", index)
            findings.mistake(path, message, 'write e.g. "192.0.2.7" or "10.0.0.0/8"')
    _twilio(config, findings, public=public)
    if config.admin.listen == config.http.listen and not config.http.listen.endswith(":0"):
        remedy = 'write another port, such as "127.0.0.1:9180"'
        findings.mistake(("admin", "listen"), "is the address of [http] listen, too", remedy)


def _folders(config: Config, findings: Findings) -> None:
    state = config.daemon.state_dir
    if state is not None and exists(state) and not is_folder(state):
        remedy = "name a folder; it is made at the first start"
        findings.mistake(("daemon", "state_dir"), f"{state} is not a folder", remedy)


def _listen(config: Config, findings: Findings) -> bool:
    """Check the address, and say whether other machines reach it."""
    path = ("http", "listen")
    try:
        host, _ = parse_listen(config.http.listen)
    except ValueError as error:
        message = f'"{config.http.listen}" {error}'
        findings.mistake(path, message, 'write "127.0.0.1:8080", "0.0.0.0:8080" or "[::]:8080"')
        return False
    return not is_loopback(host)


def _public_url(config: Config, findings: Findings) -> None:
    url = config.http.public_url
    if url is None:
        return
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number
        host = parts.hostname
    except ValueError:
        parts, host = urlsplit(""), None
    remedy = 'write e.g. "https://voice.example.net"'
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        findings.mistake(_PUBLIC_URL, f'"{url}" is not an http:// or https:// URL', remedy)
    elif parts.query or parts.fragment or url.endswith(("?", "#")):
        message = f'"{url}" has a query or a fragment'
        findings.mistake(_PUBLIC_URL, message, "remove what follows ? or #")
    elif parts.username is not None or parts.password is not None:
        message = "has a user name or password"
        findings.mistake(_PUBLIC_URL, message, "remove it: signatures take its place")


def check_certificate(table: str, cert: Path | None, key: Path | None, findings: Findings) -> None:
    """Check that `tls_cert` and `tls_key` of a table are there together and belong together."""
    cert_path, key_path = (table, "tls_cert"), (table, "tls_key")
    if not findings.sound(cert_path, key_path):
        return
    if cert is None and key is None:
        return
    if cert is None:
        findings.mistake(key_path, "there is no tls_cert", "add the certificate to this key")
    elif key is None:
        findings.mistake(cert_path, "there is no tls_key", "add the key to this certificate")
    elif all([readable(cert, cert_path, findings), readable(key, key_path, findings)]):  # say both
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # Without a callback OpenSSL would ask for a passphrase on the terminal.
            context.load_cert_chain(cert, key, password=lambda: "")
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                message = f"the key in {key} does not belong to the certificate in {cert}"
                remedy = "name a key and the certificate made from it"
            else:
                message = f"{cert} and {key} are not a PEM certificate and its key"
                remedy = "name PEM files, the key without a passphrase"
            findings.mistake(key_path, message, remedy)
        except (OSError, ValueError) as error:
            findings.mistake(key_path, f"{cert} or {key} cannot be used: {error}", "name PEM files")


def _twilio(config: Config, findings: Findings, *, public: bool) -> None:
    twilio = config.twilio
    sid = twilio.account_sid
    if sid is not None and not _ACCOUNT_SID.fullmatch(sid):
        message = "is not an account SID: AC and 32 hexadecimal digits"
        findings.mistake(("twilio", "account_sid"), message, "copy it from the Twilio console")

    def written_as(name: str) -> list[KeyPath]:
        ways: list[KeyPath] = [("twilio", f"{name}{way}") for way in ("", "_file", "_env")]
        return [way for way in ways if findings.written(way)]

    written = written_as("auth_token")
    if not written and (secondary := written_as("auth_token_secondary")):
        message = "is for a rotation, and there is no auth_token beside it"
        findings.mistake(secondary[0], message, "write this one as auth_token")
    if written and not findings.written(_PUBLIC_URL):
        message = "signatures cannot be checked without http.public_url"
        remedy = 'set public_url under [http] to the URL that Twilio calls, "https://…"'
        findings.mistake(written[0], message, remedy)
    if public and not written:
        message = "others reach this address, and without an auth token they are all refused"
        remedy = "set auth_token_file under [twilio], or listen on 127.0.0.1"
        findings.warn(("http", "listen"), message, remedy)
    elif written and not twilio.validate_signature:
        message = "anybody who finds the port can make calls that you pay for"
        remedy = "remove this key outside tests"
        findings.warn(("twilio", "validate_signature"), message, remedy)
