"""What of all that was said the caller has heard: the model, the transcript, plugins are told so.

A model believes that it has said what it has made. What the caller cut off it is told; so are words
of ours that it should know as its own (*seeds*: a recorded greeting's), once they were heard.

An item has its place in the transcript from its first audio on: its words may come after that, and
even after the caller has cut it off.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, Literal

from voiced.engine import Session
from voiced.hooks.calls import CallHooks
from voiced.playout import Cut, Playout
from voiced.plugin import Words
from voiced.record import CallRecord
from voiced.talk.clipboard import Clipboard

__all__ = ["Truth"]

FOLLOWS_MS: Final = 1000
"""Of audio without a word to it: the server writes down what it has said. Where words run ahead,
some come with the first audio or before it."""

MAX_UNSAID: Final = 64
"""Items that were no speech, whose words may be under way: a server writes them down in seconds."""


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
        self._newest = ""  # the item that audio came of last
        self._silent: set[str] = set()  # of the answer being made, items of which only words came
        self._unsaid: deque[str] = deque(maxlen=MAX_UNSAID)  # items of the caller's
        self._untold: set[str] = set()  # cut, and words that came later; bounded by the transcript

    def sounded(self, item_id: str) -> None:
        """Audio of an item of the model's has come."""
        if item_id != self._newest:
            self._newest = item_id
            self._silent.discard(item_id)
            self._record.transcript.open("agent", item_id)

    def denied(self, item_id: str) -> bool:
        """The model was told that nothing of the item was heard: that stays true, come what may."""
        entry = self._record.transcript.get(item_id)
        return entry is not None and entry.cut and not self._playout.received_ms(item_id)

    def said(
        self, role: Literal["caller", "agent"], item_id: str, text: str, *, final: bool
    ) -> None:
        """Words of either side; with `final` the `text` is whole."""
        if role == "caller" and item_id in self._unsaid:
            return  # the server had begun to write it down before it was taken out
        transcript = self._record.transcript
        entry = transcript.get(item_id)
        if role == "agent" and item_id not in self._seeds:
            if entry is None:
                if not self._playout.received_ms(item_id):  # no place was left for it
                    self._silent.add(item_id)
            elif not (entry.text or entry.cut):
                entry.follows = self._playout.received_ms(item_id) >= FOLLOWS_MS
        counts = transcript.add(role, item_id, text, final=final)
        if entry is not None and entry.cut:
            if counts:
                self._untold.add(item_id)
                if final:
                    self._tell_late()
        elif "on_transcript" in self._hooks.wants:
            self._hooks.emit("on_transcript", Words(role, item_id, text, final))

    def unsaid(self, item_id: str) -> None:
        """An item of the caller's was no speech: no history has it, whatever is told of it."""
        if not item_id:
            return  # it cannot be told from what else has no name
        self._session.delete(item_id)
        self._record.transcript.drop(item_id)
        self._unsaid.append(item_id)

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
            entry = self._record.transcript.get(cut.item_id)
            known = entry is not None and bool(entry.text)
            self._record.cut(cut)
            if known and cut.action != "none":
                self._tell_cut(cut.item_id)
        self._never_heard()
        self.settle()

    def answered(self, *, whole: bool) -> None:
        """An answer has ended; unless it is `whole`, what has not come of it will not."""
        if whole:
            self._silent.clear()
        else:
            self._never_heard()

    def _never_heard(self) -> None:
        """Words ran ahead of audio that will not come any more."""
        for item_id in self._silent:
            self._session.delete(item_id)
            self._record.transcript.cut(item_id, 0, 0)
            self._tell_cut(item_id)
        self._silent.clear()

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
        self._never_heard()
        self._tell_late()

    def _tell_late(self) -> None:
        """The plugins learn what was heard of items whose words came after the cut."""
        for item_id in self._untold:
            self._tell_cut(item_id)
        self._untold.clear()

    def _tell_cut(self, item_id: str) -> None:
        """The plugins learn what was heard of words that they had been told, or would be."""
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
