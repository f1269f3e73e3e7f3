"""The text of an answer while its tokens come: nothing that is shown is ever taken back."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from mars.evaluation.stop_strings import UNKNOWN, Text


def text_with(tokenizer: PreTrainedTokenizerBase) -> Text:
    """How answers are read: as the evaluation reads them."""

    def text(tokens: Sequence[int]) -> str:
        return str(tokenizer.decode(list(tokens), skip_special_tokens=True))

    return text


class Reply:
    """What may be shown of an answer so far.

    Half a character waits for its other half, and what may become a stop string waits until it has
    become something else. The pieces together are the text of all tokens before the first stop
    string. Each piece costs the tokens of the piece before it and its own, however long the answer.

    Args:
        text: decodes tokens; what it makes of complete characters must not depend on what follows.
        stops: strings that end the answer, none of them empty; they are not shown.

    Attributes:
        stopped: whether a stop string has come.
    """

    def __init__(self, text: Text, stops: Sequence[str] = ()):
        self.text, self.stops, self.stopped = text, stops, False
        self.tokens: list[int] = []
        # Tokens whose text is known end at ``read``. Those from ``start`` on are decoded again with
        # the new ones: a token may read otherwise at the beginning of a text, without its space.
        self.start = self.read = 0
        self.known = ""  # text of the tokens between the two
        self.held = ""  # may be the beginning of a stop string

    def add(self, tokens: Sequence[int]) -> str:
        """The text that these tokens let be shown, often none."""
        self.tokens += tokens
        recent = self.text(self.tokens[self.start :])
        if recent.endswith(UNKNOWN):
            return ""
        return self._show(self._new(recent), last=False)

    def end(self) -> str:
        """What is left to show once no token will come."""
        return self._show(self._new(self.text(self.tokens[self.start :])), last=True)

    def _new(self, recent: str) -> str:
        """The part of ``recent`` that was not known before; it is now."""
        new = recent[len(self.known) :]
        if new:
            self.start, self.known = self.read, self.text(self.tokens[self.read :])
        self.read = len(self.tokens)
        return new

    def _show(self, new: str, last: bool) -> str:
        if self.stopped:
            return ""
        text = self.held + new
        found = [place for stop in self.stops if (place := text.find(stop)) >= 0]
        if found:
            self.stopped, self.held = True, ""
            return text[: min(found)]
        shown = len(text) if last else len(text) - self._doubtful(text)
        self.held = text[shown:]
        return text[:shown]

    def _doubtful(self, text: str) -> int:
        """Characters at the end with which a stop string may begin."""
        longest = min(len(text), max(map(len, self.stops), default=1) - 1)
        lengths = range(longest, 0, -1)
        return next((n for n in lengths if any(s.startswith(text[-n:]) for s in self.stops)), 0)
