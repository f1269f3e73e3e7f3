"""The requests of OpenAI's API that greedy decoding can honour; all others are refused.

A field is accepted if it is honoured, or if its value changes no answer. Nothing is ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
)

from mars.serving.refusals import RefusedError

COMPLETION_TOKENS = 16  # what OpenAI's API gives a completion that does not say max_tokens

GREEDY = "decoding is greedy"
PLAIN = "this server gives text only"
NEUTRAL: dict[str, tuple[tuple[Any, ...], str]] = {
    # The values that change nothing, and why no other can be honoured.
    **dict.fromkeys(
        ["temperature", "min_p", "presence_penalty", "frequency_penalty"], ((0,), GREEDY)
    ),
    **dict.fromkeys(["top_p", "repetition_penalty", "length_penalty"], ((1,), GREEDY)),
    "top_k": ((-1, 0, 1), GREEDY),
    "logit_bias": (({},), GREEDY),
    "use_beam_search": ((False,), GREEDY),
    "min_tokens": ((0,), "an answer ends where the model ends it"),
    "ignore_eos": ((False,), "an answer ends where the model ends it"),
    **dict.fromkeys(["n", "best_of"], ((1,), "a request has one answer")),
    "echo": ((False,), "a completion does not repeat its prompt"),
    "suffix": (("",), "nothing can be inserted"),
    "logprobs": ((False,), "there are no probabilities"),
    "top_logprobs": ((0,), "there are no probabilities"),
    **dict.fromkeys(["tools", "functions"], (([],), PLAIN)),
    **dict.fromkeys(["tool_choice", "function_call"], (("none", "auto"), PLAIN)),
    "response_format": (({"type": "text"},), PLAIN),
    "modalities": ((["text"],), PLAIN),
    "store": ((False,), "nothing is stored"),
}
WITHOUT_EFFECT = {
    # On the answer of greedy decoding, whatever their value.
    *("seed", "user", "metadata", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"),
}


def _text_of_parts(content: Any) -> Any:
    """A content given in parts, all of which must be text."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        match part:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case _:
                raise ValueError("this server reads text only")
    return "".join(texts)


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


def _one_prompt(prompt: Any) -> str | list[int]:
    """A prompt, or the only one in a list."""
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        (prompt,) = prompt
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and all(type(token) is int for token in prompt):
        return prompt
    raise ValueError("a request has one prompt, a text or a list of token ids")


class Strict(BaseModel):
    """No unknown keys, no conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Message(Strict):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_text_of_parts)]
    type: Literal["text"] | None = None  # lm-eval sends it


class StreamOptions(Strict):
    """What a stream holds beside the text."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


TextToStop = Annotated[str, Field(min_length=1)]
FormT = TypeVar("FormT", bound="Form")


class Form(Strict):
    """What both kinds of requests have.

    ``tau`` counts as given if it is there, null too: that is one token per forward.
    """

    model: str
    tau: float | None = Field(None, ge=0, le=1)
    stop: Annotated[list[TextToStop], BeforeValidator(_as_list)] = []
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    max_tokens: int | None = Field(None, ge=1)

    @property
    def budget(self) -> int | None:
        """Most tokens of the answer; None: what fits."""
        return self.max_tokens

    @property
    def has_tau(self) -> bool:
        return "tau" in self.model_fields_set


class Chat(Form):
    """The body of ``/v1/chat/completions``."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)

    @property
    def budget(self) -> int | None:
        """Most tokens of the answer; None: what fits."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def turns(self) -> list[dict[str, str]]:
        """The conversation as chat templates take it."""
        roles = {"developer": "system"}
        return [{"role": roles.get(m.role, m.role), "content": m.content} for m in self.messages]


class Completion(Form):
    """The body of ``/v1/completions``; the prompt is a text or token ids."""

    prompt: Annotated[str | list[int], PlainValidator(_one_prompt)]

    @property
    def budget(self) -> int | None:
        """Most tokens of the answer."""
        return COMPLETION_TOKENS if self.max_tokens is None else self.max_tokens


def read(body: bytes, form: type[FormT]) -> FormT:
    """The request that a body holds.

    Raises:
        RefusedError: no such request, or one that cannot be honoured.
    """
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"The body is not JSON: {error}.") from error
    if not isinstance(given, dict):
        raise RefusedError(400, "The body must be a JSON object.")
    if b"\\u" in body and not _is_unicode(given):
        raise RefusedError(400, "The body has half a surrogate pair, which is not valid Unicode.")
    asked = {key: value for key, value in given.items() if value is not None or key == "tau"}
    for key, (neutral, reason) in NEUTRAL.items():
        if key in asked and not _is_one_of(asked.pop(key), neutral):
            raise RefusedError(
                400,
                f"{key}={json.dumps(given[key])} cannot be honoured, because {reason}: "
                "leave it out.",
                "unsupported_value",
                param=key,
            )
    kept = {key: value for key, value in asked.items() if key not in WITHOUT_EFFECT}
    if isinstance(kept.get("messages"), list):
        kept["messages"] = [without_nulls(message) for message in kept["messages"]]
    try:
        return form.model_validate(kept)
    except ValidationError as error:
        raise _refusal(error) from error


def _is_unicode(given: Any) -> bool:
    try:
        json.dumps(given, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def without_nulls(message: Any) -> Any:
    """A message as clients send back what they were answered, without the fields that are null."""
    if not isinstance(message, Mapping):
        return message
    return {key: value for key, value in message.items() if value is not None}


def _is_one_of(value: Any, neutral: tuple[Any, ...]) -> bool:
    """Whether it is one of these; True is not 1."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in neutral)


def _refusal(error: ValidationError) -> RefusedError:
    """The first mistake in a sentence."""
    first = error.errors()[0]
    place = first["loc"]
    field = ".".join(map(str, place))
    if first["type"] == "extra_forbidden":
        message = f"{field} is not a field that this server knows: leave it out."
    elif first["type"] == "missing":
        message = f"{field} is missing."
    else:
        reason = first["msg"].removeprefix("Value error, ")
        message = f"{field} is wrong: {reason[0].lower()}{reason[1:]}."
    return RefusedError(400, message, "invalid_value", param=str(place[0]) if place else None)
