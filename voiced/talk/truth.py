"""What of all that was said the caller has heard: the model, the transcript, plugins are told so.

A model believes that it has said what it has made. What the caller cut off it is told; so are words
of ours that it should know as its own (*seeds*: a recorded greeting's), once they were heard.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from voiced.engine import Session
from voiced.hooks.calls import CallHooks
from voiced.playout import Cut, Playout
from voiced.plugin import Words
from voiced.record import CallRecord
from voiced.talk.clipboard import Clipboard

__all__ = ["Truth"]


class Truth:
    """One call's."""

    def __init__(
        self,
        session: Session,
        record: CallRecord,
        playout: Playout,
        clipboard: Clipboard,
        hooks: CallHooks,
    ) -> None:
        self._session = session
        self._record = record
        self._playout = playout
        self._clipboard = clipboard
        self._hooks = hooks
        self._seeds: dict[str, str] = {}  # words of our own clips that the model is to know

    def said(
        self, role: Literal["caller", "agent"], item_id: str, text: str, *, final: bool
    ) -> None:
        """Words of either side; with `final` the `text` is whole."""
        self._record.transcript.add(role, item_id, text, final=final)
        if "on_transcript" in self._hooks.wants:
            self._hooks.emit("on_transcript", Words(role, item_id, text, final))

    def seed(self, item_id: str, text: str) -> None:
        """The model is told, as its own words, what is heard of a clip of ours."""
        self._seeds[item_id] = text

    def seed_started(self, item_id: str) -> None:
        """A clip of ours begins to be heard."""
        if item_id in self._seeds:
            self.said("agent", item_id, self._seeds[item_id], final=True)

    def cut(self, cuts: Iterable[Cut]) -> None:
        """The playout was cut, with this outcome."""
        for cut in cuts:
            if cut.action == "delete":
                self._session.delete(cut.item_id)
            elif cut.action == "truncate":
                self._session.truncate(cut.item_id, cut.content_index, cut.heard_ms)
            self._record.cut(cut)
            if cut.action != "none":
                self._tell_cut(cut.item_id)
        self.settle()

    def settle(self) -> None:
        """Something was heard, or will not be: whoever waits for that is told."""
        self._settle_seeds()
        self._clipboard.settle()

    def ended(self) -> None:
        """The call is over: of words of ours those that were heard remain."""
        for item_id in self._seeds:
            entry = self._record.transcript.get(item_id)
            heard, whole = self._playout.heard_ms(item_id), self._playout.received_ms(item_id)
            if entry is not None and heard < whole:
                self._record.transcript.cut(item_id, heard, whole)

    def _tell_cut(self, item_id: str) -> None:
        """The plugins learn what was heard of words that they had been told."""
        entry = self._record.transcript.get(item_id)
        if "on_transcript" in self._hooks.wants and entry is not None:
            words = Words("agent", item_id, entry.text, final=True, cut=True)
            self._hooks.emit("on_transcript", words)

    def _settle_seeds(self) -> None:
        """Tell the model what was heard of our own clips that it should know as its words."""
        for item_id in list(self._seeds):
            heard, whole = self._playout.heard_ms(item_id), self._playout.received_ms(item_id)
            if not heard:
                if self._playout.was_cut(item_id):
                    del self._seeds[item_id]
                    self._record.transcript.drop(item_id)
                continue
            del self._seeds[item_id]
            if heard < whole:
                self._record.transcript.cut(item_id, heard, whole)
                self._tell_cut(item_id)
            entry = self._record.transcript.get(item_id)
            if entry is not None and entry.text:
                self._session.add_message("assistant", entry.text)
