"""The requests of a simulated caller: sent until they are answered, and which answer is whose.

Sans-I/O (RFC 3261 sections 9, 13.2.2 and 17.1).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import final

from voiced.simulate.sip_dialog import Dialog, Settings, beside
from voiced.simulate.sip_message import Message, parse
from voiced.simulate.sip_transaction import T2_S, ClientTransaction, Outgoing, Repeated

__all__ = ["Requests"]

Done = Callable[[float, Message | None], None]


@final
class Requests:
    """Those of one call; what is to be sent goes to `out`.

    `complain` is told of the other side's mistakes, `forked` gets a second 2xx to an INVITE.
    """

    def __init__(
        self,
        settings: Settings,
        out: list[Outgoing],
        complain: Callable[[float, int, str], None],
        forked: Callable[[float, Message], None],
    ) -> None:
        self._is = settings
        self._out = out
        self._complain = complain
        self._forked = forked
        self._transactions: dict[str, ClientTransaction] = {}  # by branch; of one call
        self._acks: dict[tuple[int, str], Outgoing] = {}  # by CSeq and tag: a 2xx that comes again
        self.retransmissions = 0
        """Requests that had to be sent again."""
        self.repeats = 0
        """Responses that came again."""

    def send(
        self,
        now_s: float,
        method: str,
        *,
        dialog: Dialog,
        done: Done,
        body: bytes = b"",
        headers: tuple[tuple[str, str], ...] = (),
        content_type: str = "application/sdp",
    ) -> None:
        """Send a request of `dialog`; `done` is told what becomes of it."""
        dialog.cseq += 1
        branch = "z9hG4bK" + secrets.token_hex(8)
        data, to = dialog.request(method, dialog.cseq, branch, headers, body, content_type)
        most = float("inf") if method == "INVITE" else T2_S
        repeated = Repeated(data, to, now_s, self._is.transport == "tcp", most)
        request = parse(data)
        transaction = ClientTransaction(method, branch, dialog.cseq, request, repeated, done)
        self._transactions[branch] = transaction

    def cancel(self, now_s: float) -> None:
        """Section 9.1: only once something has been heard of the INVITE, and under its branch."""
        invite = self.open_invite
        if invite is None or not invite.answered or f"CANCEL{invite.branch}" in self._transactions:
            return
        data = beside(invite.request, "CANCEL")
        reliable = self._is.transport == "tcp"
        repeated = Repeated(data, invite.sending.to, now_s, reliable, T2_S)
        self._transactions[f"CANCEL{invite.branch}"] = ClientTransaction(
            "CANCEL", invite.branch, invite.cseq, parse(data), repeated, lambda at, answer: None
        )

    @property
    def open_invite(self) -> ClientTransaction | None:
        """An INVITE without a final response."""
        for transaction in self._transactions.values():
            if transaction.method == "INVITE" and not transaction.final:
                return transaction
        return None

    def acknowledge(self, response: Message, ack: Outgoing) -> None:
        """Send an ACK, and keep it: the response comes again if it is lost."""
        self._acks[response.cseq[0], response.to_tag or ""] = ack
        self._out.append(ack)

    def receive(self, now_s: float, response: Message) -> None:
        """Take a response."""
        number, method = response.cseq
        key = f"CANCEL{response.branch}" if method == "CANCEL" else response.branch
        transaction = self._transactions.get(key)
        if transaction is None or transaction.cseq != number or transaction.method != method:
            return  # section 18.1.2: belongs to nothing here
        if response.from_tag != self._is.tag:
            self._complain(now_s, 400, "a response whose From is not ours")
            return
        if response.status > 100 and response.to_tag is None:
            self._complain(now_s, 400, f"a {response.status} without a tag in To")
        if method == "INVITE" and response.status >= 200:
            known = self._acks.get((number, response.to_tag or ""))
            if known is not None:  # our ACK was lost
                self.repeats += 1
                self._out.append(known)
                return
            if response.status >= 300:
                ack = beside(transaction.request, "ACK", response.get("to"))
                self.acknowledge(response, (ack, transaction.sending.to))
            elif transaction.final:
                self._forked(now_s, response)
                return
        elif transaction.final:
            self.repeats += 1
            return
        transaction.receive(now_s, response)

    def poll(self, now_s: float) -> None:
        """Let time pass."""
        for branch, transaction in list(self._transactions.items()):
            if transaction.expired(now_s):
                del self._transactions[branch]
                continue
            due = transaction.sending.due(now_s)
            if due is not None:
                self.retransmissions += transaction.sending.sent > 1
                self._out.append(due)

    def times(self) -> list[float]:
        """When `poll` has something to do."""
        return [each.sending.next_at() for each in self._transactions.values() if not each.final]
