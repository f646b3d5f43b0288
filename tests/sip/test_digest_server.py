from __future__ import annotations

from collections.abc import Mapping

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiced.sip.authorization import Parameters, Proof, parse_authentication, write_digest
from voiced.sip.digest import Authenticator, Credentials, Verdict, Verification, Verifier
from voiced.sip.headers import Headers
from voiced.sip.message import Request, Response
from voiced.sip.uri import parse_uri

URI = parse_uri("sip:voiced.example.net")
USERS = {"alice": "s3cret", "jö": "pässword"}


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def verifier(
    *algorithms: str, clock: Clock | None = None, life: float = 300.0, most: int = 4096
) -> Verifier:
    chosen = algorithms or ("MD5",)
    return Verifier("voiced", chosen, clock or Clock(), life, max_nonces=most)


def challenge(side: Verifier) -> Parameters:
    (parameters,) = parse_authentication(side.challenge()[0])
    return parameters


def credentials(
    nonce: str,
    number: int = 1,
    changed: Mapping[str, str] | None = None,
    user: str = "alice",
    password: str = "s3cret",
) -> Request:
    """A request with credentials made without the client's code; in `changed` "-" leaves out."""
    proof = Proof("md5", user, "voiced", nonce, "INVITE", str(URI), "auth", f"{number:08x}", "c")
    parameters = {
        "username": user,
        "realm": "voiced",
        "nonce": nonce,
        "uri": str(URI),
        "response": proof.response(password),
        "cnonce": "c",
        "qop": "auth",
        "nc": f"{number:08x}",
        **(changed or {}),
    }
    parameters = {name: value for name, value in parameters.items() if value != "-"}
    return Request("INVITE", URI, Headers([("Authorization", write_digest(parameters))]))


def verdict(side: Verifier, request: Request) -> Verdict:
    return side.verify(request, USERS.get).verdict


def test_challenge() -> None:
    side = verifier()
    (text,) = side.challenge()
    assert text.startswith('Digest realm="voiced", nonce="')
    assert text.endswith('", qop="auth", algorithm=MD5')
    (stale,) = side.challenge(stale=True)
    assert stale.endswith('", qop="auth", stale=true, algorithm=MD5')
    assert challenge(side)["nonce"] != challenge(side)["nonce"]


def test_one_challenge_for_each_algorithm_in_order() -> None:
    values = verifier("SHA-256", "md5").challenge()
    assert [value.rpartition("=")[2] for value in values] == ["SHA-256", "MD5"]


@pytest.mark.parametrize("algorithms", [(), ("SHA-1",), ("MD5", "")])
def test_unknown_algorithms_are_refused_at_once(algorithms: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="algorithms must be some of MD5, MD5-sess"):
        Verifier("voiced", algorithms, Clock())


def test_right_credentials() -> None:
    side = verifier()
    request = credentials(challenge(side)["nonce"])
    assert side.verify(request, USERS.get) == Verification(Verdict.OK, "alice")


def test_no_credentials_for_us() -> None:
    side = verifier()
    assert verdict(side, Request("INVITE", URI, Headers())) is Verdict.MISSING
    nonce = challenge(side)["nonce"]
    for changed in ({"realm": "elsewhere"}, {"algorithm": "SHA-256"}, {"algorithm": "SHA-512-256"}):
        assert verdict(side, credentials(nonce, 1, changed)) is Verdict.MISSING
    for text in ("", "Basic YWxpY2U6czNjcmV0", "Digest", 'Digest realm="voiced", realm="voiced"'):
        request = Request("INVITE", URI, Headers([("Authorization", text)]))
        assert verdict(side, request) is Verdict.MISSING
    # Credentials meant for a proxy are not ours.
    value = credentials(nonce).headers.get("Authorization") or ""
    request = Request("INVITE", URI, Headers([("Proxy-Authorization", value)]))
    assert verdict(side, request) is Verdict.MISSING


def test_credentials_of_another_realm_beside_ours() -> None:
    side = verifier()
    nonce = challenge(side)["nonce"]
    value = credentials(nonce).headers.get("Authorization") or ""
    fields = [("Authorization", value.replace('"voiced"', '"x"')), ("Authorization", value)]
    assert verdict(side, Request("INVITE", URI, Headers(fields))) is Verdict.OK


@pytest.mark.parametrize(
    "changed",
    [
        {"response": "0" * 32},
        {"response": ""},
        {"response": "é"},
        {"response": "-"},
        {"username": "-"},
        {"nonce": "-"},
        {"uri": "-"},
        {"uri": "sip:elsewhere.example"},
        {"cnonce": "-"},
        {"cnonce": ""},
        {"nc": "-"},
        {"nc": "1"},
        {"nc": "0000000g"},
        {"nc": "٠٠٠٠٠٠٠١"},
        {"qop": "auth-int"},
        {"qop": ""},
        {"userhash": "true"},
    ],
)
def test_wrong_credentials(changed: dict[str, str]) -> None:
    side = verifier()
    request = credentials(challenge(side)["nonce"], 1, changed)
    assert side.verify(request, USERS.get) == Verification(Verdict.WRONG)


@pytest.mark.parametrize(
    ("user", "password"), [("alice", "guess"), ("alice", ""), ("bob", "s3cret"), ("", "")]
)
def test_wrong_users_and_passwords(user: str, password: str) -> None:
    side = verifier()
    request = credentials(challenge(side)["nonce"], user=user, password=password)
    assert side.verify(request, USERS.get) == Verification(Verdict.WRONG)


def test_the_method_is_part_of_the_proof() -> None:
    side = verifier()
    request = credentials(challenge(side)["nonce"])
    request.method = "BYE"
    assert verdict(side, request) is Verdict.WRONG


def test_a_count_works_once() -> None:
    side = verifier()
    nonce = challenge(side)["nonce"]
    # Requests overtake each other; none is taken twice.
    for number in (1, 3, 2, 70, 7):
        assert verdict(side, credentials(nonce, number)) is Verdict.OK
    for number in (1, 2, 3, 7, 70, 6):
        assert verdict(side, credentials(nonce, number)) is Verdict.STALE
    assert verdict(side, credentials(nonce, 8)) is Verdict.OK
    assert side.verify(credentials(nonce, 8), USERS.get).username == "alice"


def test_without_qop_a_nonce_works_once() -> None:
    side = verifier()
    nonce = challenge(side)["nonce"]
    proof = Proof("md5", "alice", "voiced", nonce, "INVITE", str(URI))
    changed = {"qop": "-", "nc": "-", "cnonce": "-", "response": proof.response("s3cret")}
    assert verdict(side, credentials(nonce, 1, changed)) is Verdict.OK
    assert verdict(side, credentials(nonce, 1, changed)) is Verdict.STALE
    assert verdict(side, credentials(nonce)) is Verdict.STALE


def test_nonces_grow_old() -> None:
    clock = Clock()
    side = verifier(clock=clock)
    nonce = challenge(side)["nonce"]
    clock.time += 299.9
    assert verdict(side, credentials(nonce, 1)) is Verdict.OK
    clock.time += 0.2
    assert verdict(side, credentials(nonce, 2)) is Verdict.STALE
    # A guess is wrong, however old the nonce: no stale that would invite another.
    assert verdict(side, credentials(nonce, 3, password="guess")) is Verdict.WRONG


def test_nonces_that_we_did_not_make() -> None:
    side = verifier()
    nonce = challenge(side)["nonce"]
    flipped = nonce[:-1] + ("0" if nonce[-1] != "0" else "1")
    later = "f" + nonce[1:]
    for other in (challenge(verifier())["nonce"], flipped, later, "", "x" * 64, nonce.upper()):
        if other != nonce:
            assert verdict(side, credentials(other)) is Verdict.STALE
    assert side._uses == {}


def test_memory_is_bounded_and_what_is_dropped_is_stale() -> None:
    clock = Clock()
    side = verifier(clock=clock, most=10)
    nonces = []
    for _ in range(30):
        nonces.append(challenge(side)["nonce"])
        clock.time += 1
        assert verdict(side, credentials(nonces[-1])) is Verdict.OK
        assert len(side._uses) <= 10
    for nonce in nonces[:20]:
        assert verdict(side, credentials(nonce, 2)) is Verdict.STALE
    for nonce in nonces[21:]:
        assert verdict(side, credentials(nonce, 1)) is Verdict.STALE
        assert verdict(side, credentials(nonce, 2)) is Verdict.OK


def test_guessing_takes_no_memory() -> None:
    side = verifier()
    for number in range(500):
        assert verdict(side, credentials(challenge(side)["nonce"], number, user=f"u{number}")) is (
            Verdict.WRONG
        )
    assert side._uses == {}


def test_old_nonces_leave_the_table() -> None:
    clock = Clock()
    side = verifier(clock=clock)
    for _ in range(50):
        assert verdict(side, credentials(challenge(side)["nonce"])) is Verdict.OK
    clock.time += 301
    assert verdict(side, credentials(challenge(side)["nonce"])) is Verdict.OK
    assert len(side._uses) == 1


ALL = ["MD5", "MD5-sess", "SHA-256", "SHA-256-sess"]


@pytest.mark.parametrize("algorithm", ALL)
@pytest.mark.parametrize("user", sorted(USERS))
def test_our_client_and_our_server(algorithm: str, user: str) -> None:
    side = verifier(algorithm)
    client = Authenticator(Credentials(user, USERS[user]))
    unauthorized = Response(
        401, "", Headers([("WWW-Authenticate", value) for value in side.challenge()])
    )
    header = client.answer(unauthorized, Request("INVITE", URI, Headers()))
    for _ in range(4):
        assert header is not None
        request = Request("INVITE", URI, Headers([header]))
        assert side.verify(request, USERS.get) == Verification(Verdict.OK, user)
        assert verdict(side, request) is Verdict.STALE
        header = client.again("INVITE", URI)


@pytest.mark.parametrize("algorithm", ALL)
def test_an_independent_client(algorithm: str) -> None:
    side = verifier(algorithm)
    flow = httpx.DigestAuth("alice", "s3cret").sync_auth_flow(
        request := httpx.Request("REGISTER", "http://voiced.example.net/")
    )
    next(flow)
    asked = httpx.Response(401, headers={"WWW-Authenticate": side.challenge()[0]}, request=request)
    value = flow.send(asked).headers["Authorization"]
    assert verdict(side, Request("REGISTER", URI, Headers([("Authorization", value)]))) is (
        Verdict.OK
    )
    assert verdict(side, Request("INVITE", URI, Headers([("Authorization", value)]))) is (
        Verdict.WRONG
    )


@given(st.lists(st.integers(0, 200), max_size=60))
def test_no_count_is_taken_twice(numbers: list[int]) -> None:
    side = verifier()
    nonce = challenge(side)["nonce"]
    taken = [
        number for number in numbers if verdict(side, credentials(nonce, number)) is Verdict.OK
    ]
    assert len(taken) == len(set(taken))
    # Whatever rises is taken.
    highest = -1
    for number in numbers:
        if number > max(highest, 0):
            assert number in taken
            highest = number


@given(st.one_of(st.text(), st.text('Digest"=,\\ realmvoiced').map(lambda t: f"Digest {t}")))
def test_garbage_is_never_right(text: str) -> None:
    value = text.replace("\r", "").replace("\n", "")
    request = Request("INVITE", URI, Headers([("Authorization", value)]))
    assert verdict(verifier(), request) in {Verdict.MISSING, Verdict.WRONG}
