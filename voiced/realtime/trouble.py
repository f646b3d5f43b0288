"""What a session that is ready does about the server's errors: passes over, repeats, or is lost.

Sans-I/O. Which error is of which kind `errors` says.
"""

from __future__ import annotations

import re
from typing import Final, Protocol, final

from voiced.engine import EngineEvent, ResponseDone, ResponseStarted
from voiced.realtime import errors
from voiced.realtime.errors import Verdict, fault
from voiced.realtime.events import ErrorBody
from voiced.realtime.outbox import Outbox
from voiced.realtime.responses import MAX_REFUSALS, Ask, Responses

__all__ = ["Lose", "Trouble"]

_RESPONSE_ID: Final = re.compile(r"\bresp_\w+")


class Lose(Protocol):
    """Ends the session."""

    def __call__(self, code: str, message: str, *, retryable: bool) -> None:
        """The first reason counts."""


@final
class Trouble:
    """One session's; appends to `told` what the call is to know."""

    def __init__(
        self, outbox: Outbox, responses: Responses, told: list[EngineEvent], lose: Lose
    ) -> None:
        self._outbox = outbox
        self._responses = responses
        self._events = told
        self._lose = lose
        self._failures = 0  # in a row, of the server's own making
        self._limited = 0  # in a row, by its rate limit

    def over(self) -> None:
        """A response was completed: what fails from now on is a new row."""
        self._failures = self._limited = 0

    def response_failed(self, code: str, message: str, ask: Ask | None, *, wanted: bool) -> None:
        """A response has failed, the one to `ask`; `wanted`: somebody waits for it."""
        if self.ends(code, message):
            return
        if code == errors.SERVER_ERROR:
            self._server_failed(message, ask or Ask(), wanted=wanted)
        elif code == "rate_limit_exceeded":
            # The next answer may fit under the limit again; if it does not, nobody will be
            # answered for the rest of the minute.
            self._limited += 1
            if self._limited > 1:
                self._lose(code, message, retryable=True)
            else:
                self._tell(code, message, "alarm")
        else:
            self._tell(code, message, "alarm")

    def ends(self, code: str, message: str) -> bool:
        """End the session if the error means that; returns whether it does."""
        judged = errors.verdict(code)
        if judged not in (Verdict.TERMINAL, Verdict.RECONNECT):
            return False
        self._lose(code, message, retryable=judged is Verdict.RECONNECT)
        return True

    def error(self, code: str, body: ErrorBody) -> None:
        """Take an `error` event that does not end the session."""
        message = body.message or ""
        outstanding = self._responses.outstanding(body.event_id)
        if code == errors.ACTIVE_RESPONSE:
            self._response_refused(message, self._responses.refused(body.event_id), body.event_id)
        elif code == errors.TRUNCATE_TOO_LONG:
            self._truncate_refused(message, body.event_id)
        elif code == errors.CANCEL_NOT_ACTIVE:
            self._cancel_refused(message, body.event_id)
        elif self._outbox.about_item(body.event_id, body.param, message):
            # Nothing was cut or taken out. That costs the model a little truth, the caller nothing.
            self._tell(code, message, "ignore")
        elif code == errors.SERVER_ERROR:
            ask = self._responses.refused(body.event_id)
            if ask is None and body.event_id:  # an item or a list of tools was not taken
                self._tell(code, message, "alarm")
            else:
                self._server_failed(message, ask, wanted=True)
        else:
            judged = errors.verdict(code)
            if judged is Verdict.ALARM:  # if it is about a response, that will not be created
                ask = self._responses.refused(body.event_id)
                if outstanding and ask is not None and not ask.cancelled:
                    self._not_created(code, body.event_id)
            self._tell(code, message, "ignore" if judged is Verdict.IGNORE else "alarm")

    def _not_created(self, code: str, event_id: str | None) -> None:
        """Tell of an answer that somebody waits for and that will not come: it has failed."""
        response_id = f"refused:{event_id}"
        self._events.append(ResponseStarted(response_id))
        self._events.append(ResponseDone(response_id, "failed", code))

    def _server_failed(self, message: str, ask: Ask | None, *, wanted: bool) -> None:
        """The same response once more; a second failure in a row costs the session."""
        self._failures += 1
        if self._failures > 1:
            self._lose(errors.SERVER_ERROR, message, retryable=True)
        elif wanted and ask is not None and not ask.cancelled:
            self._tell(errors.SERVER_ERROR, message, "retry")
            self._responses.want_first(ask)
        else:
            self._tell(errors.SERVER_ERROR, message, "alarm")

    def _response_refused(self, message: str, ask: Ask | None, event_id: str | None) -> None:
        """The server is at work on another response; ours waits until that is done."""
        found = _RESPONSE_ID.search(message)
        self._responses.busy_with(found[0] if found else None)
        if ask is None or ask.cancelled:
            self._tell(errors.ACTIVE_RESPONSE, message, "ignore")
            return
        ask.refusals += 1
        if ask.refusals > MAX_REFUSALS:
            self._not_created(errors.ACTIVE_RESPONSE, event_id)
            self._tell(errors.ACTIVE_RESPONSE, message, "alarm")
            return
        self._tell(errors.ACTIVE_RESPONSE, message, "retry")
        self._responses.want_first(ask)

    def _truncate_refused(self, message: str, event_id: str | None) -> None:
        """Nothing was truncated: once more with the length that the server counts."""
        again = self._outbox.truncate_again(event_id, errors.shorter_ms(message))
        self._tell(errors.TRUNCATE_TOO_LONG, message, "retry" if again else "ignore")

    def _cancel_refused(self, message: str, event_id: str | None) -> None:
        """The response was over before: a race, or its `response.done` got lost.

        The next one need not wait for that. It may still come, and bring the usage.
        """
        self._tell(errors.CANCEL_NOT_ACTIVE, message, "ignore")
        response_id = self._outbox.cancelled(event_id)
        if response_id is not None:
            self._responses.release(response_id)

    def _tell(self, code: str, message: str, action: errors.Action) -> None:
        self._events.append(fault(code, message, action))
