"""A conversation to the text of its prompt, in the built-in template or in a checkpoint's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import PromptError
from ..types import Message
from .chat_template import BUILTIN_TEMPLATE, Segment, render_segments, without_nones

Span = tuple[int, int]  # characters [start, end)


@dataclass(frozen=True)
class TemplateInputs:
    """What a checkpoint's template reads beside the messages."""

    tools: Sequence[Mapping[str, Any] | Callable[..., Any]] | None = None  # JSON schemas, or functions with docstrings
    documents: Sequence[Mapping[str, Any]] | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)  # special tokens by their names, and the caller's own


NOTHING = TemplateInputs()


@dataclass(frozen=True)
class Rendered:
    """The prompt text of a conversation."""

    text: str
    answers: tuple[Span, ...] = ()  # what the assistant says: in the built-in template with the <|im_end|> behind it


def render(
    messages: Sequence[Message],
    *,
    template: str | None = None,
    add_generation_prompt: bool = False,
    continue_final_message: bool = False,
    inputs: TemplateInputs = NOTHING,
) -> str:
    """The prompt text of one conversation in the built-in template, or in the Jinja source `template`.

    Raises PromptError as `render_segments` and `render_template` do.
    """
    own = _own(template)
    if own is not None:
        return render_template(
            own,
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            inputs=inputs,
        )
    segments = render_segments(
        messages, add_generation_prompt=add_generation_prompt, continue_final_message=continue_final_message
    )
    return "".join(segment.text for segment in segments)


def _own(template: str | None) -> str | None:
    """`template`, or None if it is the built-in one."""
    return None if template == BUILTIN_TEMPLATE else template


def variables_read(template: str | None) -> frozenset[str]:
    """What a template reads beside the messages. PromptError if it is no Jinja."""
    own = _own(template)
    if own is None:
        return frozenset()
    from .jinja_sandbox import variables_of

    return variables_of(own)


def render_template(
    template: str,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = False,
    continue_final_message: bool = False,
    inputs: TemplateInputs = NOTHING,
) -> str:
    """The prompt text of one conversation in the Jinja source `template`, run in a sandbox.

    Raises PromptError when the messages are malformed or the template cannot render or continue them.
    """
    segments = _checked(template, messages, add_generation_prompt, continue_final_message)
    messages = without_nones(messages)
    if not continue_final_message:
        return _render_jinja(template, messages, add_generation_prompt, inputs)
    sentinel = _sentinel_absent_from(segments)
    rendered = _render_jinja(template, [*messages[:-1], _with_sentinel(messages[-1], sentinel)], False, inputs)
    start = rendered.rfind(sentinel.rstrip())
    if start < 0:
        raise PromptError("The chat template leaves out the end of the final message, so it cannot be continued.")
    # If the template trimmed the sentinel's trailing space, it trims messages: then trim the text's trailing spaces.
    return rendered[:start] if rendered.startswith(sentinel, start) else rendered[:start].rstrip()


def render_with_answers(
    messages: Sequence[Message],
    *,
    template: str | None = None,
    add_generation_prompt: bool = False,
    inputs: TemplateInputs = NOTHING,
) -> Rendered:
    """As `render`, with the spans of what the assistant says: what a template has inside `{% generation %}`.

    Raises PromptError when the template marks nothing, or the messages have the characters that mark it.
    """
    own = _own(template)
    if own is None:
        return _with_trained_spans(render_segments(messages, add_generation_prompt=add_generation_prompt))
    from .jinja_sandbox import MARKS

    if not re.search(r"\{%-?\s*generation\s*-?%\}", own):
        raise PromptError(
            "The chat template does not say what the assistant's words are; put {% generation %} and "
            "{% endgeneration %} around them in it, or leave out return_assistant_tokens_mask."
        )
    _checked(own, messages, add_generation_prompt, False)
    messages = without_nones(messages)
    marked = _render_jinja(own, messages, add_generation_prompt, inputs, marked=True)
    text, spans, start = "", [], 0
    for piece in re.split(f"([{''.join(MARKS)}])", marked):
        if piece == MARKS[0]:
            start = len(text)
        elif piece == MARKS[1]:
            spans.append((start, len(text)))
        else:
            text += piece
    if text != _render_jinja(own, messages, add_generation_prompt, inputs):
        raise PromptError("The chat template changes what it has inside {% generation %}, so that it cannot be found.")
    return Rendered(text, tuple(spans))


def _with_trained_spans(segments: Iterable[Segment]) -> Rendered:
    text, spans = "", list[Span]()
    for segment in segments:
        if segment.trained:
            spans.append((len(text), len(text) + len(segment.text)))
        text += segment.text
    return Rendered(text, tuple(spans))


def conversations(conversation: Any) -> tuple[list[Any], bool]:
    """One conversation or a list of them as a list, and whether it was a list of conversations."""
    batched = isinstance(conversation, (list, tuple)) and bool(conversation)
    batched = batched and all(isinstance(item, (list, tuple)) for item in conversation)
    return (list(conversation), True) if batched else ([conversation], False)


def render_all(conversation: Any, *, answers: bool = False, **options: Any) -> tuple[list[Rendered], bool]:
    """One conversation or a list of them, rendered, and whether it was a list. `answers`: with their spans.

    Raises PromptError as `render`, and for spans of a message that is to be continued.
    """
    batch, batched = conversations(conversation)
    if not answers:
        return [Rendered(render(messages, **options)) for messages in batch], batched
    if options.pop("continue_final_message", False):
        raise PromptError("return_assistant_tokens_mask and continue_final_message exclude each other; pass one.")
    return [render_with_answers(messages, **options) for messages in batch], batched


def _render_jinja(
    template: str, messages: Sequence[Message], prompt: bool, inputs: TemplateInputs, *, marked: bool = False
) -> str:
    from .jinja_sandbox import render_jinja
    from .tool_schema import tool_schemas

    variables = {
        **inputs.variables,
        "messages": messages,
        "tools": tool_schemas(inputs.tools),
        "documents": _checked_documents(inputs.documents),
        "add_generation_prompt": prompt,
    }
    return render_jinja(template, variables, marked=marked)


def _checked_documents(documents: Sequence[Any] | None) -> Sequence[Any] | None:
    for number, document in enumerate(documents or (), 1):
        if not isinstance(document, Mapping):
            raise PromptError(
                f"Document {number} is a {type(document).__name__}; expected a dict, such as 'title' and 'text'."
            )
    return documents


def _checked(template: str, messages: Any, prompt: bool, continued: bool) -> list[Segment]:
    """The conversation as the built-in template has it, which refuses content that any template would silently drop.

    What `template` names it may read: a part with such a key, or a message that has one in place of its content.
    """
    return list(
        render_segments(
            builtin_view(messages, template), add_generation_prompt=prompt, continue_final_message=continued
        )
    )


def builtin_view(messages: Any, template: str | None) -> Any:
    """The messages as the built-in template can take them: without what only `template` reads."""
    if _own(template) is None or not isinstance(messages, (list, tuple)):
        return messages
    assert template is not None
    checked = []
    for message in without_nones(messages):
        if isinstance(message, dict):
            read = [key for key in message if key not in ("role", "content", "type") and str(key) in template]
            if read and message.get("content") is None:
                message = {**message, "content": ""}
            if isinstance(message.get("content"), (list, tuple)):
                message = {**message, "content": [part for part in message["content"] if not _is_read(part, template)]}
        checked.append(message)
    return checked


def _is_read(part: Any, template: str) -> bool:
    """Whether a part that is neither text nor a clip has a key that the template names."""
    known = ("type", "text", "audio", "audio_url")
    if not isinstance(part, dict) or any(key in part for key in known[1:]) or part.get("type") == "audio":
        return False
    return any(str(key) in template for key in part if key not in known)


def _sentinel_absent_from(segments: Iterable[Segment]) -> str:
    text = "".join(segment.text for segment in segments)
    sentinel = "CONTINUE_HERE"
    while sentinel in text:
        sentinel += "_"
    return sentinel + " "


def _with_sentinel(message: Message, sentinel: str) -> Message:
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": content + sentinel}
    return {**message, "content": [*content[:-1], {**content[-1], "text": content[-1]["text"] + sentinel}]}
