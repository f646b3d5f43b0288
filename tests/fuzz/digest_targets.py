"""Fuzz target of digest authentication, on both sides of it."""

from __future__ import annotations

from tests.fuzz import seeds
from voiced.sip.authenticator import Authenticator, Credentials
from voiced.sip.authorization import parse_authentication
from voiced.sip.message import Request, parse, response_to
from voiced.sip.verifier import Verdict, Verifier

__all__ = ["digest_seeds", "digest_target"]

_USER, _PASSWORD = "alice", "secret"


_SENT = parse(seeds.sip_seeds()[0])


def _request() -> Request:
    assert isinstance(_SENT, Request)
    return _SENT.copy()


def _verifier() -> Verifier:
    """Always with the same nonce, so that a seed's credentials can be right."""
    return Verifier("here", ["MD5", "SHA-256"], lambda: 5.0, random=lambda count: bytes(count))


def digest_target(data: bytes) -> None:
    """No text of a challenge or of credentials raises, and none but the right one is let in."""
    text = data.decode("utf-8", "surrogateescape").replace("\r", " ").replace("\n", " ")
    for parameters in parse_authentication(text):
        assert all(name == name.lower() for name in parameters)
    request = _request()
    request.headers.add("Authorization", text)
    verdict = _verifier().verify(request, lambda name: _PASSWORD if name == _USER else None)
    if verdict.verdict in {Verdict.OK, Verdict.STALE}:
        assert verdict.username == _USER
        other = _verifier().verify(request, lambda name: "another")
        assert other.verdict is Verdict.WRONG
    challenge = response_to(request, 401, headers=[("WWW-Authenticate", text)])
    authenticator = Authenticator(Credentials(_USER, _PASSWORD), lambda: "0a4f113b")
    retry = _request()
    answer = authenticator.answer(challenge, retry)
    if answer is not None:
        retry.headers.add(*answer)
        assert len(parse_authentication(answer[1])) == 1
        assert answer[1].encode("utf-8", "surrogateescape") in bytes(retry)
        authenticator.answer(challenge, retry)


def digest_seeds() -> list[bytes]:
    """Challenges, right and wrong credentials, and several schemes in one field."""
    found = [
        'Digest realm="a", nonce="b", Basic realm="c", Digest realm="d", nonce="e", qop="auth"',
        'Digest username="x\\"y", realm=here, nonce=abc==, uri="sip:a@b", response="0"',
    ]
    for number, challenge in enumerate(_verifier().challenge(stale=True)):
        response = response_to(_request(), 401, headers=[("WWW-Authenticate", challenge)])
        authenticator = Authenticator(Credentials(_USER, _PASSWORD), lambda: "0a4f113b")
        answer = authenticator.answer(response, _request())
        assert answer is not None, number
        found += [challenge, answer[1]]
    return [text.encode() for text in found]
