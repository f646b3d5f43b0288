"""What the emulator says: chosen by what it was told to say, or by the line that it recognised."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from voiced import clips
from voiced.emulator.functions import arguments_for, wanted_tool
from voiced.emulator.items import Item
from voiced.emulator.telling import first_sentences, in_words

__all__ = ["Call", "Line", "choose", "language_of", "pieces", "recorded", "wanted_call"]

_EXACTLY: Final = re.compile(r'exactly the following words and nothing else:\s*"(.*)"', re.S)
_SCRIPTS: Final = (
    ("ja", re.compile("[\u3040-\u30ff]")),
    ("ko", re.compile("[\uac00-\ud7af]")),
    ("zh", re.compile("[\u4e00-\u9fff]")),
    ("ru", re.compile("[\u0400-\u04ff]")),
    ("el", re.compile("[\u0370-\u03ff]")),
    ("ar", re.compile("[\u0600-\u06ff]")),
    ("tr", re.compile("[ğışĞİŞ]")),
)
_PRESSED: Final = re.compile(r"pressed\W+(?:the )?(?:keys? |digits? )?([0-9*#A-D]+)\b")
# What a client that lost a session tells the next one, in sentences of its own making.
_CUT_OFF: Final = re.compile(r'(?:^|\n)[^\n]*\bcut off\b[^\n]*?: "(.*)"\s+Go on\b.*$', re.S)
_CALLED: Final = re.compile(r"\byou (?:have )?called\b", re.I)
_RETURNED: Final = re.compile(r"\breturned: (.*)$", re.S)
_REPEAT: Final = re.compile(r"^repeat (?:all|everything) (?:that )?you know\b", re.I)
MAX_SPOKEN: Final = 500  # characters of a tool's output


@dataclass(frozen=True, slots=True)
class Line:
    """Words to say, and the recordings of them, one after the other, where there are any."""

    text: str
    language: str
    clips: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """A function to call; `arguments` is JSON."""

    name: str
    arguments: str


def language_of(text: str, default: str) -> str:
    """Guess the language by its script; `default` where that says nothing, or fits as well."""
    found = next((code for code, script in _SCRIPTS if script.search(text)), default)
    return default if (found, default) == ("zh", "ja") else found


def _clip(name: str, language: str = "en") -> Line:
    localised = f"{name}_{language}"
    clip = clips.load(localised if localised in clips.names() else name)
    return Line(clip.text, clip.language, (clip.name,))


def _known(item: Item) -> clips.Clip | None:
    """The caller's line that an item is, spoken or written."""
    if item.clip is not None:
        return clips.load(item.clip)
    return next((clip for clip in clips.all_clips("caller") if clip.text == item.text), None)


def _said(item: Item) -> str:
    known = _known(item)
    return known.text if known else item.text


def _last_asked(context: Sequence[Item]) -> Item | None:
    return next((item for item in reversed(context) if item.role == "user"), None)


def _is_call(item: Item) -> bool:
    """Whether a function was called, in this session or, as is told, in one before."""
    told = item.role == "system" and _CALLED.search(item.text) is not None
    return told or item.body["type"] == "function_call"


def wanted_call(
    context: Sequence[Item], tools: Sequence[Mapping[str, Any]], choice: object
) -> Call | None:
    """Return the function that the caller's last words ask for, once for each time they ask."""
    asked = _last_asked(context)
    if asked is None and not (isinstance(choice, Mapping) or choice == "required"):
        return None
    words = ""
    if asked is not None:
        later = context[max(i for i, item in enumerate(context) if item is asked) :]
        if any(_is_call(item) for item in later):
            return None
        words = _said(asked)
    elif any(map(_is_call, context)):
        return None
    known = _known(asked) if asked is not None else None
    hint = words
    if known is not None and known.language != "en":  # tools are mostly described in English
        english = known.name.rpartition("_")[0]
        hint += f" {clips.load(english).text}" if english in clips.names("caller") else ""
    tool = wanted_tool(tools, hint, choice)
    return None if tool is None else Call(tool["name"], arguments_for(tool, words))


def _of_output(text: str, language: str) -> Line:
    """Words for what a function has returned."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        value = text
    spoken = first_sentences(in_words(value).strip(), MAX_SPOKEN)
    if not spoken:
        return _clip("anything_else", language)
    return recorded(spoken) or Line(spoken, language_of(spoken, language))


def _asks_back(clip: clips.Clip) -> bool:
    return (clip.answer or "").startswith("you_asked")


def _recall(context: Sequence[Item], asked: Item, language: str) -> Line:
    """What the caller said before they asked what they had said."""
    before = [item for item in context if item.role == "user" and item is not asked]
    for item in reversed(before):
        known, text = _known(item), _said(item)
        if text and not (known and _asks_back(known)):
            opening = _clip("you_asked", language)
            recordings = (*opening.clips, known.name) if known else ()
            between = "" if opening.language == "ja" else " "
            return Line(f"{opening.text}{between}{text}", language, recordings)
    return _clip("nothing_asked", language)


def _all_known(context: Sequence[Item], language: str) -> Line:
    """Every text of the conversation in its order, for who tests what a model has been told."""
    words = (
        part.get("text") or part.get("transcript") or ""
        for item in context
        for part in item.body.get("content", ())
    )
    text = " ".join(said for each in words if (said := each.strip()))
    return Line(text, language) if text else _clip("nothing_asked", language)


def _last_note(context: Sequence[Item]) -> str:
    """What the client said last, if that was not for the caller's ears."""
    return context[-1].text if context and context[-1].role == "system" else ""


def _rest(whole: Line, begun: str) -> Line:
    """What is left of an answer that broke off after `begun`, whole where it was another one."""
    at = whole.text.find(begun) if begun else -1
    if at < 0:
        return whole
    rest = whole.text[at + len(begun) :].strip()
    return Line(rest, whole.language) if rest else _clip("anything_else", whole.language)


def choose(instructions: str | None, context: Sequence[Item], language: str, turn: int) -> Line:
    """Choose an answer.

    Args:
        instructions: those of this response alone, None where it has none.
        context: the conversation so far, or the response's own input.
        language: of the session, for greetings and guesses.
        turn: how many answers there have been, to vary what is said to the unknown.
    """
    note = instructions if instructions else _last_note(context)
    cut_off = _CUT_OFF.search(note)
    if cut_off:
        if instructions:
            whole = choose(instructions[: cut_off.start()] or None, context, language, turn)
        else:
            whole = choose(None, context[:-1], language, turn)
        return _rest(whole, cut_off[1].strip())
    if instructions:
        told = _EXACTLY.search(instructions)
        if told and told[1].strip():
            text = told[1].strip()
            return recorded(text) or Line(text, language_of(text, language))
        if "greet" in instructions.lower():
            return _clip("greeting", language)
    if context and context[-1].body["type"] == "function_call_output":
        return _of_output(context[-1].body["output"], language)
    if note:
        if _REPEAT.search(note):
            return _all_known(context if instructions else context[:-1], language)
        pressed, returned = _PRESSED.search(note), _RETURNED.search(note)
        if pressed:
            return Line(f"You pressed {' '.join(pressed[1])}.", "en")
        if returned and _CALLED.search(note):
            return _of_output(returned[1], language)
    asked = _last_asked(context)
    if asked is None:
        greeted = turn > 0 or any(item.role == "assistant" for item in context)
        return _clip("anything_else" if greeted else "greeting", language)
    known = _known(asked)
    if known is not None:
        if _asks_back(known):
            return _recall(context, asked, known.language)
        return _clip(known.answer or "tell_me_more", known.language)
    if asked.heard_speech:
        return _clip("not_understood", language)
    language = language_of(asked.text, language)
    return _clip("tell_me_more" if turn % 2 else "anything_else", language)


def recorded(text: str) -> Line | None:
    """Find a recording of exactly this text in the agent's voice."""
    for role in ("agent", "prompt"):
        for name in clips.names(role):
            clip = clips.load(name)
            if clip.text == text:
                return Line(clip.text, clip.language, (clip.name,))
    return None


def pieces(text: str) -> list[str]:
    """Cut into words with their spaces; where a script has none, into runs of four characters."""
    words = text.split(" ")
    if len(words) == 1:
        return [text[i : i + 4] for i in range(0, len(text), 4)]
    return [word + " " for word in words[:-1]] + [words[-1]]
