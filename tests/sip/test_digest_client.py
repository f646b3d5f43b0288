from __future__ import annotations

from itertools import count

import pytest

from voiced.sip.authorization import Parameters, Proof, parse_authentication
from voiced.sip.digest import Authenticator, Credentials
from voiced.sip.headers import Headers
from voiced.sip.message import Request, Response
from voiced.sip.uri import parse_uri

URI = parse_uri("sip:registrar.example.net;transport=tcp")
MD5 = 'Digest realm="here", nonce="n1", algorithm=MD5, qop="auth"'
SHA = 'Digest realm="here", nonce="n2", algorithm=SHA-256, qop="auth"'


def authenticator(realm: str | None = None, user: str = "alice") -> Authenticator:
    numbers = count(1)
    return Authenticator(Credentials(user, "s3cret", realm), lambda: f"c{next(numbers)}")


def request(*headers: tuple[str, str], method: str = "REGISTER") -> Request:
    return Request(method, URI, Headers(headers))


def challenged(*values: str, status: int = 401) -> Response:
    name = "WWW-Authenticate" if status == 401 else "Proxy-Authenticate"
    return Response(status, "no", Headers([(name, value) for value in values]))


def answered(
    side: Authenticator, response: Response, sent: Request | None = None
) -> tuple[str, Parameters]:
    header = side.answer(response, sent or request())
    assert header is not None
    name, value = header
    (parameters,) = parse_authentication(value)
    return name, parameters


def test_header_to_the_byte() -> None:
    side = authenticator()
    challenge = (
        'Digest realm="here", nonce="n1", opaque="o\\"p", algorithm=md5, qop="auth-int,auth"'
    )
    expected = Proof(
        "md5", "alice", "here", "n1", "REGISTER", str(URI), "auth", "00000001", "c1"
    ).response("s3cret")
    assert side.answer(challenged(challenge), request()) == (
        "Authorization",
        'Digest username="alice", realm="here", nonce="n1", '
        f'uri="sip:registrar.example.net;transport=tcp", response="{expected}", '
        'algorithm=MD5, cnonce="c1", opaque="o\\"p", qop=auth, nc=00000001',
    )


def test_without_qop_and_algorithm_as_in_rfc_2069() -> None:
    _, parameters = answered(authenticator(), challenged('Digest realm="here", nonce="n1"'))
    assert set(parameters) == {"username", "realm", "nonce", "uri", "response"}
    proof = Proof("md5", "alice", "here", "n1", "REGISTER", str(URI))
    assert parameters["response"] == proof.response("s3cret")


@pytest.mark.parametrize("algorithm", ["md5-SESS", "sha-256-sess"])
@pytest.mark.parametrize("qop", ["", ', qop="auth"'])
def test_session_algorithms(algorithm: str, qop: str) -> None:
    challenge = f'Digest realm="here", nonce="n1", algorithm={algorithm}{qop}'
    side = authenticator()
    _, first = answered(side, challenged(challenge))
    assert first["cnonce"] == "c1"
    header = side.again("INVITE", URI)
    assert header is not None
    (second,) = parse_authentication(header[1])
    # The session's secret holds the first client nonce.
    assert second["cnonce"] == "c1"
    proof = Proof(algorithm.lower(), "alice", "here", "n1", "INVITE", str(URI), "", "", "c1")
    if qop:
        proof = Proof(
            algorithm.lower(), "alice", "here", "n1", "INVITE", str(URI), "auth", "00000002", "c1"
        )
    assert second["response"] == proof.response("s3cret")


def test_407_is_answered_in_its_own_header() -> None:
    name, _ = answered(authenticator(), challenged(MD5, status=407))
    assert name == "Proxy-Authorization"


@pytest.mark.parametrize("joined", [True, False])
def test_first_supported_challenge_is_taken(joined: bool) -> None:
    unknown = 'Digest realm="here", nonce="n0", algorithm=SHA-512-256, qop="auth"'
    values = ['Basic realm="here"', unknown, SHA, MD5]
    if joined:
        values = [", ".join(values)]
    _, parameters = answered(authenticator(), challenged(*values))
    assert (parameters["nonce"], parameters["algorithm"]) == ("n2", "SHA-256")
    _, parameters = answered(authenticator(), challenged(MD5, SHA))
    assert parameters["nonce"] == "n1"


@pytest.mark.parametrize(
    "value",
    [
        'Basic realm="here"',
        'Digest realm="here", nonce="n", qop="auth-int"',
        'Digest realm="here", nonce="n", qop=""',
        'Digest realm="here", nonce="n", algorithm=SHA-512-256',
        'Digest realm="here"',
        'Digest realm="here", nonce=""',
        'Digest nonce="n"',
        "garbage",
    ],
)
def test_challenges_that_cannot_be_answered(value: str) -> None:
    side = authenticator()
    assert side.answer(challenged(value), request()) is None
    assert side.again("INVITE", URI) is None


def test_other_responses_are_no_challenges() -> None:
    response = Response(403, "Forbidden", Headers([("WWW-Authenticate", MD5)]))
    assert authenticator().answer(response, request()) is None
    assert authenticator().answer(challenged(), request()) is None
    # A 401 is answered by what it asks with, not by what a proxy would.
    crossed = Response(401, "no", Headers([("Proxy-Authenticate", MD5)]))
    assert authenticator().answer(crossed, request()) is None


def test_credentials_for_one_realm_go_nowhere_else() -> None:
    assert authenticator("elsewhere").answer(challenged(MD5), request()) is None
    other = MD5.replace("here", "elsewhere")
    _, parameters = answered(authenticator("elsewhere"), challenged(MD5, other))
    assert parameters["realm"] == "elsewhere"


def retried(side: Authenticator, response: Response, sent: Request) -> Request | None:
    header = side.answer(response, sent)
    return None if header is None else request(header)


def test_refused_credentials_are_not_sent_again() -> None:
    side = authenticator()
    sent = retried(side, challenged(MD5), request())
    assert sent is not None
    assert side.answer(challenged(MD5.replace("n1", "n5")), sent) is None
    # Nor with another algorithm of the same realm.
    assert side.answer(challenged(SHA, MD5), sent) is None


def test_stale_is_answered_once() -> None:
    side = authenticator()
    sent = retried(side, challenged(MD5), request())
    assert sent is not None
    stale = MD5.replace("n1", "n5") + ", stale=TRUE"
    again = retried(side, challenged(stale), sent)
    assert again is not None
    assert 'nonce="n5"' in (again.headers.get("Authorization") or "")
    assert side.answer(challenged(stale.replace("n5", "n6")), again) is None


def test_credentials_sent_ahead_may_be_refused_once() -> None:
    side = authenticator()
    answered(side, challenged(MD5))
    ahead = side.again("INVITE", URI)
    assert ahead is not None
    sent = request(ahead, method="INVITE")
    assert side.answer(challenged(MD5), sent) is None  # the same nonce: it is the password
    again = retried(side, challenged(MD5.replace("n1", "n5")), sent)
    assert again is not None
    assert side.answer(challenged(MD5.replace("n1", "n6")), again) is None


def test_every_use_of_a_nonce_counts() -> None:
    side = authenticator()
    answered(side, challenged(MD5))
    counts = []
    for _ in range(3):
        header = side.again("OPTIONS", str(URI))
        assert header is not None
        (parameters,) = parse_authentication(header[1])
        proof = Proof(
            "md5", "alice", "here", "n1", "OPTIONS", str(URI), "auth", parameters["nc"], "c1"
        )
        assert parameters["response"] == proof.response("s3cret")
        counts.append(parameters["nc"])
    assert counts == ["00000002", "00000003", "00000004"]


def test_next_nonce_of_a_2xx() -> None:
    side = authenticator()
    answered(side, challenged(MD5))
    side.accepted(
        Response(200, "OK", Headers([("Authentication-Info", 'nextnonce="n9", qop=auth')]))
    )
    header = side.again("OPTIONS", URI)
    assert header is not None
    (parameters,) = parse_authentication(header[1])
    assert (parameters["nonce"], parameters["nc"]) == ("n9", "00000001")
    side.accepted(Response(200, "OK", Headers([("Authentication-Info", 'rspauth="aa"')])))
    side.accepted(Response(200, "OK", Headers([("Proxy-Authentication-Info", 'nextnonce="p"')])))
    header = side.again("OPTIONS", URI)
    assert header is not None
    assert 'nonce="n9"' in header[1]


def test_proxies_of_several_realms() -> None:
    side = authenticator()
    outer, inner = MD5.replace("here", "outer"), MD5.replace("here", "inner")
    first = side.answer(challenged(outer, status=407), request())
    assert first is not None
    second = side.answer(challenged(inner, status=407), request(first))
    assert second is not None
    assert 'realm="inner"' in second[1]
    # Both ask again: the one that has our answer has refused it, and so has the other by now.
    both = challenged(outer, inner, status=407)
    assert side.answer(both, request(first, second)) is None
    third = side.answer(both, request(first))
    assert third is not None
    assert 'realm="inner"' in third[1]


def test_names_with_quotes_and_umlauts() -> None:
    side = authenticator(user='jö"rg\\')
    _, parameters = answered(side, challenged(MD5.replace("here", 'Z\\"ürich')))
    assert parameters["username"] == 'jö"rg\\'
    assert parameters["realm"] == 'Z"ürich'
    proof = Proof("md5", 'jö"rg\\', 'Z"ürich', "n1", "REGISTER", str(URI), "auth", "00000001", "c1")
    assert parameters["response"] == proof.response("s3cret")


def test_memory_is_bounded() -> None:
    side = authenticator()
    for number in range(1000):
        answered(side, challenged(MD5.replace("here", f"r{number}")))
        side.again("INVITE", URI)
    assert len(side._realms) <= 8
    assert len(side._attempts) <= 256


def test_the_password_stays_out_of_logs() -> None:
    assert "s3cret" not in repr(Credentials("alice", "s3cret"))
