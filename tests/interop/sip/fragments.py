"""Parts of sipp scenarios and of their messages, so that each scenario shows what it is about.

In a scenario `{{name:words}}` stands for what the function under this name makes of the words; a
part that ends a message has its body and the empty line before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

__all__ = ["expand"]

_FRAGMENT: Final = re.compile(r"\{\{([\w-]+)(?::([^}]*))?\}\}")

HEAD = """\
Via: SIP/2.0/[transport] [local_ip]:[local_port];rport;branch=[branch]
From: "Caller" <sip:+15550199@[local_ip]:[local_port]>;tag=[pid]t[call_number]
Call-ID: [call_id]
Max-Forwards: 70"""

TO = "To: <sip:[service]@[remote_ip]:[remote_port]>"
CONTACT = "Contact: <sip:peer@[local_ip]:[local_port];transport=[transport]>"
EMPTY = "Content-Length: 0\n"

_CODECS = {
    "0": "a=rtpmap:0 PCMU/8000",
    "8": "a=rtpmap:8 PCMA/8000",
    "18": "a=rtpmap:18 G729/8000",
    "96": "a=rtpmap:96 telephone-event/8000\na=fmtp:96 0-15",
    "101": "a=rtpmap:101 telephone-event/8000\na=fmtp:101 0-15",
}
_DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")


def _invite(words: Sequence[str]) -> str:
    return "\n".join(
        [
            "INVITE sip:[service]@[remote_ip]:[remote_port] SIP/2.0",
            HEAD,
            TO,
            f"CSeq: {words[0] if words else 1} INVITE",
            CONTACT,
        ]
    )


def _within(words: Sequence[str]) -> str:
    """`METHOD CSEQ`: a request of the caller's in the dialog that a recv with rrs has noted."""
    method, number = words
    via, sender, *rest = HEAD.splitlines()
    return "\n".join(
        [
            f"{method} [next_url] SIP/2.0",
            via,
            "[routes]",
            sender,
            f"{TO}[peer_tag_param]",
            *rest,
            f"CSeq: {number} {method}",
            CONTACT,
        ]
    )


def _sdp(words: Sequence[str]) -> str:
    """`[VERSION] [direction | zero] [payload types…]`, in this order, ends the message."""
    numbers = list(words)
    version = numbers.pop(0) if numbers and numbers[0].startswith("v") else "v1"
    direction = numbers.pop(0) if numbers and numbers[0] in (*_DIRECTIONS, "zero") else "sendrecv"
    types = numbers or ["0", "101"]
    address = "0.0.0.0" if direction == "zero" else "[media_ip]"
    lines = [
        "Content-Type: application/sdp",
        "Content-Length: [len]",
        "",
        "v=0",
        f"o=peer 1 {version[1:]} IN IP4 [local_ip]",
        "s=-",
        f"c=IN IP4 {address}",
        "t=0 0",
        f"m=audio {{{{port}}}} RTP/AVP {' '.join(types)}",
        *(_CODECS[number] for number in types),
        f"a={'sendrecv' if direction == 'zero' else direction}",
        "",
    ]
    return "\n".join(lines)


def _reply(words: Sequence[str]) -> str:
    """`STATUS Reason`: the called one's answer to the INVITE, with its tag."""
    return "\n".join(
        [
            f"SIP/2.0 {' '.join(words)}",
            "[last_Via:]",
            "[last_From:]",
            "[last_To:];tag=[pid]u[call_number]",
            "[last_Call-ID:]",
            "[last_CSeq:]",
            CONTACT,
        ]
    )


def _answer(words: Sequence[str]) -> str:
    """`STATUS Reason`: the answer to a request in the dialog."""
    return "\n".join(
        [
            f"SIP/2.0 {' '.join(words)}",
            "[last_Via:]",
            "[last_From:]",
            "[last_To:]",
            "[last_Call-ID:]",
            "[last_CSeq:]",
            CONTACT,
        ]
    )


def _remember(_: Sequence[str]) -> str:
    """In the recv of an INVITE: what `request` needs."""
    return (
        '<action><ereg regexp="[^ ].*" search_in="hdr" header="From:" assign_to="caller"/>'
        '<ereg regexp="[^ ].*" search_in="hdr" header="To:" assign_to="called"/>'
        '<ereg regexp="sip:[^>;]*" search_in="hdr" header="Contact:" assign_to="contact"/>'
        '<ereg regexp="[0-9]+" search_in="hdr" header="CSeq:" assign_to="cseq"/></action>'
    )


def _request(words: Sequence[str]) -> str:
    """`METHOD CSEQ`: a request of the called one's in the dialog."""
    method, number = words
    return "\n".join(
        [
            f"{method} [$contact] SIP/2.0",
            "Via: SIP/2.0/[transport] [local_ip]:[local_port];rport;branch=[branch]",
            "From: [$called];tag=[pid]u[call_number]",
            "To: [$caller]",
            "Call-ID: [call_id]",
            f"CSeq: {number} {method}",
            "Max-Forwards: 70",
            CONTACT,
        ]
    )


def _refused(words: Sequence[str]) -> str:
    """`STATUS CSEQ`: the caller is refused finally, and acknowledges in the same transaction."""
    status, number = words
    return f"""<recv response="100" optional="true"/>
  <recv response="180" optional="true"/>
  <recv response="{status}"/>
  {_send(_NACK + f"CSeq: {number} ACK", EMPTY)}"""


_NACK = """ACK sip:[service]@[remote_ip]:[remote_port] SIP/2.0
[last_Via:]
[last_From:]
[last_To:]
[last_Call-ID:]
Max-Forwards: 70
"""


def _send(*parts: str, attributes: str = "") -> str:
    return f"<send{attributes}><![CDATA[\n" + "\n".join(parts) + "\n]]></send>"


def _ack(words: Sequence[str]) -> str:
    """`CSEQ`: the caller's ACK to a 2xx."""
    return _send(_within(["ACK", *words]), EMPTY)


def _hangup(words: Sequence[str]) -> str:
    """`CSEQ`: the caller's BYE and its answer."""
    return "\n  ".join(
        [
            _send(_within(["BYE", *words]), EMPTY, attributes=' retrans="2000"'),
            '<recv response="200"/>',
        ]
    )


def _call(words: Sequence[str]) -> str:
    """The caller's INVITE, with a body as `sdp` makes it, up to its ACK."""
    return "\n  ".join(
        [
            _send(_invite([]), _sdp(words), attributes=' retrans="2000"'),
            '<recv response="100" optional="true"/>',
            '<recv response="180"/>',
            '<recv response="200" rrs="true"/>',
            _ack(["1"]),
        ]
    )


def _ok(_: Sequence[str]) -> str:
    """200 to a request of ours in the caller's dialog."""
    return '<recv response="100" optional="true"/>\n  <recv response="200"/>'


def _called(words: Sequence[str]) -> str:
    """The called one rings and answers, with a body as `sdp` makes it, up to the ACK."""
    return "\n  ".join(
        [
            f'<recv request="INVITE">{_remember([])}</recv>',
            _send(_reply(["180", "Ringing"]), EMPTY),
            _send(_reply(["200", "OK"]), _sdp(words), attributes=' retrans="2000"'),
            '<recv request="ACK"/>',
            '<Reference variables="caller,called,contact,cseq"/>',
        ]
    )


def _hung_up(_: Sequence[str]) -> str:
    """The daemon's BYE, answered."""
    return f'<recv request="BYE"/>\n  {_send(_answer(["200", "OK"]), EMPTY)}'


_FRAGMENTS: Final[dict[str, Callable[[Sequence[str]], str]]] = {
    "ack": _ack,
    "answer": _answer,
    "call": _call,
    "called": _called,
    "contact": lambda words: CONTACT,
    "empty": lambda words: EMPTY,
    "hangup": _hangup,
    "head": lambda words: HEAD,
    "hung-up": _hung_up,
    "invite": _invite,
    "ok": _ok,
    "refused": _refused,
    "remember": _remember,
    "reply": _reply,
    "request": _request,
    "sdp": _sdp,
    "to": lambda words: TO,
    "within": _within,
}


def expand(text: str, values: Mapping[str, object]) -> str:
    """A scenario as sipp reads it: `{{name}}` of `values`, then fragments, put in."""
    for name, value in values.items():
        text = text.replace(f"{{{{{name}}}}}", str(value))

    def part(match: re.Match[str]) -> str:
        return expand(_FRAGMENTS[match[1]]((match[2] or "").split()), values)

    return _FRAGMENT.sub(part, text)
