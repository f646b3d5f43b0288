"""Addresses and certificates."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from voiced.config import ConfigError, load, parse_listen
from voiced.config.addresses import is_loopback


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:8080", ("::1", 8080)),
        ("[::]:65535", ("::", 65535)),
        ("voice-1.example.net:443", ("voice-1.example.net", 443)),
    ],
)
def test_addresses_are_split(address: str, expected: tuple[str, int]) -> None:
    assert parse_listen(address) == expected


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("", "no port"),
        ("8080", "no port"),
        (":8080", "no host before"),
        ("127.0.0.1:", "no port from 0"),
        ("127.0.0.1:-1", "no port from 0"),
        ("127.0.0.1:65536", "no port from 0"),
        ("127.0.0.1:٣", "no port from 0"),
        ("::1:8080", "IPv6 address without brackets"),
        ("[::g]:8080", "no IPv6 address in the brackets"),
        ("127.0.0.256:8080", "no IPv4 address"),
        ("a b:8080", "no host name"),
        ("-a:8080", "no host name"),
        ("http://a:8080", "IPv6 address without brackets"),
    ],
)
def test_what_is_no_address_says_why(address: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_listen(address)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_every_address_and_port_comes_back(address: object, port: int) -> None:
    host = f"[{address}]" if ":" in str(address) else str(address)
    assert parse_listen(f"{host}:{port}") == (str(address), port)


@given(st.text(max_size=30))
def test_no_text_raises_anything_but_value_error(text: str) -> None:
    with suppress(ValueError):
        host, port = parse_listen(text)
        assert host
        assert 0 <= port <= 65535


def test_loopback_is_this_machine_alone() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST."]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "192.0.2.1", "example.net"]))


def tls_file(folder: Path, cert: str, key: str) -> Path:
    file = folder / "voiced.toml"
    file.write_text(f'[http]\ntls_cert = "{cert}"\ntls_key = "{key}"\n')
    return file


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    for name in ("a", "b"):
        leaf = trustme.CA().issue_cert(f"{name}.example")
        leaf.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        leaf.private_key_pem.write_to_path(folder / f"{name}.key")
    return folder


def test_a_certificate_and_its_key_pass(certificates: Path) -> None:
    http = load(tls_file(certificates, "a.pem", "a.key"), environ={}).config.http
    assert (http.tls_cert, http.tls_key) == (certificates / "a.pem", certificates / "a.key")


def test_a_key_of_another_certificate_is_refused_naming_both(certificates: Path) -> None:
    file = tls_file(certificates, "a.pem", "b.key")
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    assert str(caught.value) == (
        f"{file}:3: http.tls_key: the key in {certificates}/b.key does not belong to the "
        f"certificate in {certificates}/a.pem; name a key and the certificate made from it"
    )


def test_a_key_with_a_passphrase_is_refused_without_asking_for_it(certificates: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key((certificates / "a.key").read_bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (certificates / "locked.key").write_bytes(locked)
    with pytest.raises(ConfigError, match="the key without a passphrase"):
        load(tls_file(certificates, "a.pem", "locked.key"), environ={})


def test_a_ca_file_with_certificates_passes(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    file = tmp_path / "voiced.toml"
    file.write_text('[engine.m]\nkind = "realtime"\nserver = "other"\nca_file = "ca.pem"\n')
    assert load(file, environ={})
