"""Who may use the admin listener, and where it listens."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
import structlog
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.web.admin_peer import TOKEN, site
from voiced.web.access import Access, Seen
from voiced.web.listening import ListenError, serve_admin
from voiced.web.token import FILE_NAME, read_or_make_token, read_token

FAR = "198.51.100.9"


@pytest.mark.parametrize("shown", ["", "Bearer", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x"])
async def test_the_api_needs_the_token_for_everything(shown: str) -> None:
    async with site() as made, made.client(Authorization=shown) as client:
        with structlog.testing.capture_logs() as logs:
            for method, path in (
                ("GET", "/api/calls"),
                ("GET", "/api/calls/x"),
                ("POST", "/api/calls"),
                ("POST", "/api/calls/x/hangup"),
                ("GET", "/api/trunks"),
                ("GET", "/api/bans"),
            ):
                answer = await client.request(method, path)
                assert answer.status_code == 401, path
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
                assert set(answer.json()) == {"error", "message", "remedy"}
        assert len(logs) == 6
        assert TOKEN not in repr(logs)
        assert {why for _, why in made.counted} == ({"wrong_token"} if shown else {"no_token"})
        assert made.daemon.deeds == []


async def test_the_token_may_be_spelt_as_http_allows() -> None:
    async with site() as made, made.client(Authorization=f"bearer  {TOKEN}") as client:
        assert (await client.get("/api/calls")).status_code == 200


@pytest.mark.parametrize(
    "name",
    ["evil.example", "127.0.0.1.evil.example", "a.localhost.evil.example", "[::1", "", "a b"],
)
async def test_a_rebound_name_gets_nothing(name: str) -> None:
    async with site() as made, made.client(Authorization="", Host=f"{name}:9180") as client:
        for path in ("/metrics", "/api/calls"):
            answer = await client.get(path)
            assert answer.status_code == 421
            assert "voiced_tests" not in answer.text
        assert (await client.get("/readyz")).json() == {"ready": True}


@pytest.mark.parametrize(
    "name", ["localhost", "a.localhost", "127.0.0.1", "[::1]", "voice.example.net", "192.0.2.4"]
)
async def test_names_of_ours(name: str) -> None:
    async with site() as made, made.client(Authorization="", Host=f"{name}:9180") as client:
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.get("/api/calls")).status_code == 401


async def test_pages_of_other_sites_are_refused_whatever_they_show() -> None:
    async with site() as made:
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Sec_Fetch_Site": "cross-site"},
            {"Origin": f"http://{made.address}.evil.example"},
            {"Origin": made.address},
            {"Origin": f"ftp://{made.address}"},
        ):
            async with made.client(**headers) as client:
                answer = await client.post("/api/calls", json={"to": "+49"})
                assert (answer.status_code, answer.json()["error"]) == (403, "cross_origin")
                assert "Access-Control-Allow-Origin" not in answer.headers
        for scheme in ("http", "https"):  # the latter by way of a proxy that ends TLS
            own = {"Origin": f"{scheme}://{made.address}", "Sec_Fetch_Site": "same-origin"}
            async with made.client(**own) as client:
                assert (await client.post("/api/calls", json={"to": "+49"})).status_code == 201
        assert len(made.daemon.deeds) == 2


def test_a_page_in_plain_text_is_another_origin_than_one_over_tls() -> None:
    headers = {"host": "a.localhost", "origin": "http://a.localhost"}
    denied = Access(TOKEN).api(Seen(headers, "127.0.0.1", secure=True))
    assert denied is not None
    assert denied.code == "cross_origin"


def seen(peer: str | None, **headers: str) -> Seen:
    names = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    return Seen({"host": "192.0.2.4:9180", **names}, peer)


def test_metrics_are_open_to_this_machine_alone() -> None:
    access = Access(TOKEN)
    for peer in (None, "127.0.0.1", "127.3.3.3", "::1", "::ffff:127.0.0.1"):
        assert access.open(seen(peer)) is None
        for name in ("X_Forwarded_For", "Forwarded", "X_Real_IP", "Via"):
            proxied = access.open(seen(peer, **{name: FAR}))
            assert proxied is not None
            assert proxied.status == 401
    for peer in (FAR, "2001:db8::1", "::ffff:198.51.100.9", "garbage"):
        denied = access.open(seen(peer))
        assert denied is not None
        assert denied.status == 401
        assert access.open(seen(peer, Authorization=f"Bearer {TOKEN}", Host="any")) is None


@given(st.text(st.characters(codec="latin-1"), max_size=30))
def test_no_other_token_opens(text: str) -> None:
    access = Access(TOKEN)
    shown = seen("127.0.0.1", Authorization=f"Bearer {text}")
    assert access.has_token(shown) == (text.strip() == TOKEN)


# ---- Unix sockets ----


async def test_a_unix_socket_has_its_mode_and_goes_with_the_listener(tmp_path: Path) -> None:
    path = tmp_path / "run" / "voiced" / "admin.sock"
    async with site(f"unix:{path}") as made:
        assert made.address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        async with made.client(Authorization="") as client:
            assert (await client.get("/metrics")).status_code == 200
            assert (await client.get("/api/calls")).status_code == 401
        async with made.client() as client:
            with structlog.testing.capture_logs() as logs:
                await client.post("/api/calls", json={"to": "+49"})
            assert logs[0]["who"] == "unix socket"
    assert not path.exists()


async def test_what_a_dead_daemon_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with site(f"unix:{path}") as made, made.client() as client:
        assert (await client.get("/healthz")).status_code == 200


async def test_a_socket_in_use_stays(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(1)
        for _ in range(3):  # more often than its backlog holds
            with pytest.raises(ListenError, match="another program uses it"):
                await listen_once(f"unix:{path}")
        assert path.exists()


async def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    path.write_text("precious")
    with pytest.raises(ListenError, match="no socket: name another path"):
        await listen_once(f"unix:{path}")
    assert path.read_text() == "precious"


async def test_another_socket_of_that_name_is_not_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    async with site(f"unix:{path}"):
        path.unlink()
        path.write_text("somebody else's")
    assert path.exists()


async def test_a_taken_port_is_said_with_a_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ListenError) as caught:
            await listen_once(address)
    assert str(caught.value) == (
        f"cannot listen on {address} (Address already in use); "
        "another program uses it: stop that one, or change the address"
    )


async def listen_once(listen: str) -> None:
    async def app() -> None:
        raise AssertionError

    stop = trio.Event()
    stop.set()
    await serve_admin(listen, app, stop=stop)  # type: ignore[arg-type]


# ---- the token that is made ----


def test_a_token_is_made_once_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    token = read_or_make_token(folder)
    assert len(token) == 43
    assert stat.S_IMODE((folder / FILE_NAME).stat().st_mode) == 0o600
    assert read_or_make_token(folder) == token == read_token(folder)
    assert [file.name for file in folder.iterdir()] == [FILE_NAME]
    assert read_or_make_token(tmp_path / "other") != token


def test_of_two_daemons_that_start_at_once_one_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def overtaken(source: Path, target: Path) -> None:
        Path(target).write_text("theirs\n")
        link(source, target)

    monkeypatch.setattr(os, "link", overtaken)
    assert read_or_make_token(tmp_path) == "theirs"
    assert [file.name for file in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"\xff", b"a\x00b"])
def test_a_damaged_token_file_is_not_taken_for_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(ValueError, match="remove it and start the daemon"):
        read_or_make_token(tmp_path)
