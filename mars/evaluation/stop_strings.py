"""Whether an answer holds a stop string, asked after every forward of a sequence that grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Text = Callable[[Sequence[int]], str]

CONTEXT = 16
"""Characters next to a cut through the tokens that may read otherwise than in the whole: a space
that decoding strips, half a character, spaces cleaned up around punctuation."""
UNKNOWN = "\N{REPLACEMENT CHARACTER}"


class StopStrings:
    """Whether the tokens so far hold one of the strings; of one sequence, until they do.

    It says what decoding all tokens each time would say, but decodes the last ones only: a string
    that was not there before ends in the new text, or where new tokens complete a character. What
    is found there is looked for in the whole once more before it counts.

    Args:
        text: decodes tokens.
        strings: none of them empty.
    """

    def __init__(self, text: Text, strings: Sequence[str]):
        self.text, self.strings = text, strings
        self.needed = max(map(len, strings)) + CONTEXT  # characters to keep
        self.start = 0  # the first of the tokens that are still decoded
        # Where characters are made of bytes, one wrong byte makes many of those before it unknown.
        self.whole = any(UNKNOWN in string for string in strings)

    def __call__(self, tokens: Sequence[int]) -> bool:
        recent = self.text(tokens[self.start :])
        if any(string in recent for string in self.strings):
            return self.start == 0 or holds(self.text, self.strings, tokens)
        self._advance(tokens, recent)
        return False

    def _advance(self, tokens: Sequence[int], recent: str) -> None:
        """Keep fewer tokens, if those read by themselves as they do behind the others."""
        if self.whole:
            return
        for keep in (self.needed, 2 * self.needed, 4 * self.needed):
            if len(tokens) - self.start < 2 * keep:
                return
            kept = self.text(tokens[-keep:])
            if len(kept) >= self.needed and UNKNOWN not in kept and recent.endswith(kept):
                self.start = len(tokens) - keep
                return


def holds(text: Text, strings: Sequence[str], tokens: Sequence[int]) -> bool:
    """The same by decoding all tokens."""
    whole = text(tokens)
    return any(string in whole for string in strings)
