"""The endpoint over TLS: whose certificate is believed."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme

from tests.sip.nodes import LOCAL, TCP, TLS, UDP, node, read_to_end, request, response, until
from voiced.sip.endpoint import Endpoint
from voiced.sip.guard import Guard
from voiced.sip.socket import ListenAddress, ListenError
from voiced.sip.tls import client_context, names_server

# TLS


def server_tls(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def trusting(authority: trustme.CA, path: Path) -> ssl.SSLContext:
    authority.cert_pem.write_to_path(str(path / "ca.pem"))
    return client_context(path / "ca.pem")


async def test_tls_there_and_back(authority: trustme.CA, tmp_path: Path) -> None:
    client = trusting(authority, tmp_path)
    server = server_tls(authority, "sip.example.net")
    async with node(UDP, client_tls=client) as one, node(TLS, server_tls=server) as two:
        target = two.target("tls", "sip.example.net")
        for branch in ("a", "b"):
            one.endpoint.send(request(branch=branch), target, one.failed)
            _, flow = await two.next()
            assert flow.transport == "tls"
            two.endpoint.send(response(branch=branch), flow)
            await one.next()
        assert two.endpoint.statistics().accepted == 1
        assert one.nothing_more()


async def test_tls_server_of_another_name(authority: trustme.CA, tmp_path: Path) -> None:
    client = trusting(authority, tmp_path)
    server = server_tls(authority, "other.example.net")
    async with node(UDP, client_tls=client) as one, node(TLS, server_tls=server) as two:
        one.endpoint.send(request(), two.target("tls", "sip.example.net"), one.failed)
        assert await one.failure() == "the certificate is not for sip.example.net"
        one.endpoint.send(request(), two.target("tls"), one.failed)
        assert await one.failure() == "the certificate is not for 127.0.0.1"
        assert two.nothing_more()


async def test_tls_server_of_another_authority(tmp_path: Path, authority: trustme.CA) -> None:
    client = trusting(authority, tmp_path)
    server = server_tls(trustme.CA(), "sip.example.net")
    async with node(UDP, client_tls=client) as one, node(TLS, server_tls=server) as two:
        one.endpoint.send(request(), two.target("tls", "sip.example.net"), one.failed)
        assert "certificate verify failed" in await one.failure()
        await until(lambda: bool(two.counted["connection", "handshake_failed"]))


async def test_plain_text_to_a_tls_port(authority: trustme.CA) -> None:
    server = server_tls(authority, "sip.example.net")
    async with node(TLS, server_tls=server) as one:
        async with await trio.open_tcp_stream(*one.address("tls")) as stream:
            await stream.send_all(request())
            await read_to_end(stream)
        assert one.nothing_more()
        assert one.endpoint.statistics().accepted == 0


@pytest.mark.parametrize(
    ("alternatives", "name", "speaks"),
    [
        ([("DNS", "Sip.Example.net")], "sip.example.NET", True),
        ([("DNS", "sip.example.net")], "example.net", False),
        ([("DNS", "*.example.net")], "sip.example.net", True),
        ([("DNS", "*.example.net")], "a.sip.example.net", False),
        ([("DNS", "*.example.net")], "example.net", False),
        ([("DNS", "*.net")], "example.net", False),
        ([("URI", "sip:example.net"), ("DNS", "x.example.net")], "example.net", True),
        ([("URI", "sip:example.net"), ("DNS", "x.example.net")], "x.example.net", False),
        ([("URI", "sip:bob@example.net")], "example.net", False),
        ([("URI", "https://example.net"), ("DNS", "example.net")], "example.net", True),
        ([("IP Address", "192.0.2.1")], "192.0.2.1", True),
        ([("IP Address", "2001:DB8:0:0:0:0:0:1")], "2001:db8::1", True),
        ([("DNS", "192.0.2.1")], "192.0.2.1", False),
        ([], "example.net", False),
    ],
)
def test_whom_a_certificate_speaks_for(
    alternatives: list[tuple[str, str]], name: str, speaks: bool
) -> None:
    assert names_server({"subjectAltName": tuple(alternatives)}, name) is speaks


# Beginning and end


async def test_what_cannot_be_listened_on(authority: trustme.CA) -> None:
    guard = Guard(now=trio.current_time)

    def endpoint(*listen: ListenAddress) -> Endpoint:
        return Endpoint(listen, guard=guard, on_message=lambda message, flow: None)

    with pytest.raises(ListenError, match="nothing to listen on"):
        endpoint()
    with pytest.raises(ListenError, match=r"tls://127\.0\.0\.1:0: no certificate"):
        endpoint(TLS)
    with pytest.raises(ListenError, match="not an IP address"):
        endpoint(ListenAddress("udp", "localhost", 5060))
    async with node(UDP, TCP) as one:
        for transport in ("udp", "tcp"):
            taken = ListenAddress(transport, LOCAL, one.target(transport).port)
            with pytest.raises(ListenError, match="in use"):
                await endpoint(taken).serve()
