"""A session that began with our INVITE."""

from __future__ import annotations

from voiced.sip.session import Session

__all__ = ["ClientSession"]


class ClientSession(Session):
    """We call: made by `UserAgent.invite`; `Progress`, then `Answered` or `Ended` follow."""
