"""SIP messages: parsing, building, and what they are made of, under one name."""

from voiced.sip.build import REASONS, request, response_to
from voiced.sip.headers import Headers
from voiced.sip.model import Message, Request, Response
from voiced.sip.parser import MAX_BODY, MAX_FIELDS, MAX_HEAD, parse
from voiced.sip.uri import NameAddr
from voiced.sip.values import CSeq, RAck, Replaces, SessionExpires, SubscriptionState, Via

__all__ = [
    "MAX_BODY",
    "MAX_FIELDS",
    "MAX_HEAD",
    "REASONS",
    "CSeq",
    "Headers",
    "Message",
    "NameAddr",
    "RAck",
    "Replaces",
    "Request",
    "Response",
    "SessionExpires",
    "SubscriptionState",
    "Via",
    "parse",
    "request",
    "response_to",
]
