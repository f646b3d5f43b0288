# ruff: noqa: RUF001 (punctuation of other scripts is what this is about)
"""Cuts an answer that is being written into pieces that can be spoken. Pure.

What comes out, joined, is what went in, to the last space; and it does not depend on how the text
was cut on its way in. The first piece is short, so that speech begins early; the others are whole
sentences, since a voice needs to know where a sentence goes. A sentence that does not end is cut at
a comma, at worst between words.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, final

__all__ = ["FIRST_CLAUSE", "LONG", "MAX", "Sentences", "speakable", "width"]

# In characters of Latin script, about 15 a second; Chinese, Japanese and Korean ones count double.
SHORT: Final = 20  # less is joined with what follows: a request each for "Yes." sounds choppy ...
FIRST_SHORT: Final = 3  # ... but what is said first is said at once
FIRST_CLAUSE: Final = 32  # from here on a comma ends the first piece: two seconds to make the next
LONG: Final = 180  # from here on a comma ends any piece
MAX: Final = 280  # nothing is longer: some servers refuse more than about 300

_CLOSERS: Final = "\"'”’»)]}*_"
_WIDE_ENDS: Final = "。！？｡"
_WIDE_CLOSERS: Final = "」』）】》〉”’"
_QUOTE_GOES_ON: Final = "とっなのは、"  # the particle that says that it was a quotation
_CLAUSE: Final = ",;:–—"
_WIDE_CLAUSE: Final = "、，；："

# English, German, French, Spanish, Italian, Turkish; lower case, without the last full stop.
_WORDS: Final = """
mr mrs ms dr prof st jr sr vs etc approx dept est inc ltd ext min max tel mon tue tues wed thu thur
thurs fri sat sun jan feb mar apr jun jul aug sep sept oct nov dec
str nr bzw ca usw evtl inkl zzgl ggf vgl hr fr abs ing dipl
mme mlle env av bd sra srta ud uds avda pág dott sig
sn vb vd yrd doç mah cad sok blv apt no bkz örn tic şti
"""
_ABBREVIATIONS: Final = frozenset(_WORDS.split())
_NEEDS_NUMBER: Final = frozenset({"no", "nr", "max", "min", "sat", "sun", "mar", "fr", "av", "est"})
"""Words of their own as well: abbreviations only where a number follows."""

_INITIALS: Final = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")  # "J", "e.g", "z.B", "p.m"
_ORDINAL: Final = re.compile(r"\d{1,3}")  # "3. Mai", "3. kat"; a year is more

_MARKUP: Final = re.compile(r"\*+|`+|^\s*#+\s+|^\s*[-*•]\s+|_{2,}", re.M)
_LINK: Final = re.compile(r"\[([^\]]*)\]\([^)]*\)")


def width(text: str) -> int:
    """How long it takes to say, in Latin characters."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def speakable(text: str) -> str:
    """A piece as a voice should get it: without marks of layout; empty if there are no words."""
    text = _MARKUP.sub("", _LINK.sub(r"\1", text))
    text = "".join(c for c in text if unicodedata.category(c) not in ("So", "Cs", "Cn", "Co"))
    text = " ".join(text.split())
    return text if any(c.isalnum() for c in text) else ""


@final
class Sentences:
    """Feed it text, take pieces; `end` gives the rest."""

    def __init__(self) -> None:
        self._text = ""
        self._width = 0
        self._first = True

    def feed(self, text: str) -> list[str]:
        """Return the pieces that are complete now."""
        pieces: list[str] = []
        for character in text:
            if self._complete(character):
                self._take(len(self._text), pieces)
            self._text += character
            self._width += width(character)
            if character == "\n" and self._width > (FIRST_SHORT if self._first else SHORT):
                self._take(len(self._text), pieces)
            elif self._width >= LONG:
                self._shorten(pieces)
        return pieces

    def end(self) -> list[str]:
        """Return what is left; nothing may be fed any more."""
        pieces: list[str] = []
        if self._text:
            self._take(len(self._text), pieces)
        return pieces

    def _take(self, size: int, pieces: list[str]) -> None:
        piece, self._text = self._text[:size], self._text[size:]
        self._width = width(self._text)
        pieces.append(piece)
        if speakable(piece):
            self._first = False

    def _complete(self, following: str) -> bool:
        """Whether a piece ends before `following`."""
        text = self._text
        shortest = FIRST_SHORT if self._first else SHORT
        if self._width < shortest or following.isspace():
            return False
        last = text[-1]
        if last in _WIDE_ENDS or last in _WIDE_CLOSERS:
            bare = text.rstrip(_WIDE_CLOSERS)
            ended = bare.endswith(tuple(_WIDE_ENDS))
            quoted = last in _WIDE_CLOSERS and following in _QUOTE_GOES_ON
            return ended and not quoted and following not in _WIDE_ENDS + _WIDE_CLOSERS
        if last in _WIDE_CLAUSE:
            return self._clause_ends()
        if not last.isspace():
            return False
        bare = text.rstrip()
        if bare.endswith(tuple(_CLAUSE)):
            return self._clause_ends()
        bare = bare.rstrip(_CLOSERS)
        if bare.endswith(("!", "?", "…", *_WIDE_ENDS)):
            return True
        return bare.endswith(".") and _ends_sentence(bare, following)

    def _clause_ends(self) -> bool:
        return self._width >= (FIRST_CLAUSE if self._first else LONG)

    def _shorten(self, pieces: list[str]) -> None:
        """Cut a sentence without an end: behind its last comma, or, if need be, between words."""
        text = self._text
        least = len(text) // 3
        for at in range(len(text) - 1, least, -1):
            spaced = text[at].isspace() and text[at - 1] in _CLAUSE
            if spaced or text[at - 1] in _WIDE_CLAUSE:
                self._take(at + 1 if spaced else at, pieces)
                return
        if self._width >= MAX:
            spaces = (at for at in range(len(text) - 1, least, -1) if text[at - 1].isspace())
            self._take(next(spaces, len(text)), pieces)


def _ends_sentence(bare: str, following: str) -> bool:
    """Whether the full stop at the end of `bare` ends a sentence that `following` comes after."""
    if bare.endswith(".."):
        return not following.islower()
    word = re.split(r"[\s(\"'„“«]", bare[:-1])[-1]
    lower = word.lower()
    if following.islower() or _ORDINAL.fullmatch(word) or _INITIALS.fullmatch(word):
        return False
    if lower in _NEEDS_NUMBER:
        return not following.isdigit()
    return lower not in _ABBREVIATIONS
