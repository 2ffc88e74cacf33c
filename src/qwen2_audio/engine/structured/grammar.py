"""What an answer is held to, by llguidance: compiled once, then a matcher for each answer.

A token is allowed if the answer's text, with it, is still the beginning of a text that the grammar accepts, however the
text is divided into tokens. A control token is never allowed, but for those that end an answer, and these only where
the text is complete.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ConfigError
from ...text.vocabulary import UNPRINTABLE
from .triggered import TriggeredMatcher

if TYPE_CHECKING:
    from ...text.tokenizer import Tokenizer
    from ...types import SamplingParams

Constraint = tuple[str, str]  # its kind and its text, as SamplingParams.constraint

MAX_CHARACTERS = 1 << 20  # of a constraint's text
CHECKED = 64  # constraints that are known to be honoured, or not
CACHED = 16  # compiled grammars; the library holds up to 2 kB for each of a grammar's lexer states
# What a hostile grammar may cost, in the library's units: 20 ms to compile its regular expressions, 17 ms a token.
LIMITS = {
    "max_items_in_row": 2000,
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 50_000,
    "max_lexer_states": 20_000,
    "max_grammar_size": 500_000,
    "verbose_errors": False,
}
# One way to write JSON: a model that is free to put white space anywhere may never stop.
ONE_SPACE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
# The model chooses among all tokens that fit; the library would force its own division of a text into tokens.
NO_FORCING = '\n%llguidance {"no_forcing": true}\n'
_GBNF_RULE = re.compile(r"^[ \t]*[\w-]+[ \t]*::=", re.MULTILINE)
_CONTROL = b"\xff"  # before the name of a token that is no text, in llguidance
_EXCERPT = re.compile(r"\s*(?:\d+ \|.*|\^.*)$")
# A literal without an end matches too, with an empty group: else each of its quotes would be looked at in a new search.
_LITERALS = re.compile(r'"(?:\\.|[^"\\\n])*("?)|(?://|#)[^\n]*|/(?:\\.|[^/\\\n])+(/?)')


class Matcher:
    """How far one answer has come in its grammar. Attribute `finished`: it has ended, and takes any further token."""

    def __init__(self, inner: Any, eos_ids: frozenset[int], vocabulary: int) -> None:
        """`inner`: llguidance's matcher."""
        self.finished = False
        self._inner, self._eos_ids, self._vocabulary = inner, eos_ids, vocabulary

    free = False  # any token may come

    @property
    def complete(self) -> bool:
        """The text is whole, and nothing but the end may follow."""
        return not self.finished and self._inner.is_stopped() and not self._inner.is_error()

    def copy(self) -> Matcher:
        """Another answer that has come as far."""
        copied = Matcher(self._inner.deep_copy(), self._eos_ids, self._vocabulary)
        copied.finished = self.finished
        return copied

    def accepts(self, token: int) -> bool:
        """The answer may go on with `token`."""
        return self.num_accepted([token]) == 1

    def num_accepted(self, tokens: Sequence[int]) -> int:
        """How many of `tokens`, in order, the answer may go on with."""
        if self.finished:
            return len(tokens)
        if self._inner.is_stopped():  # nothing but the end may follow
            count = int(bool(tokens) and tokens[0] in self._eos_ids)
        else:
            count = self._inner.validate_tokens(list(tokens))
        return 0 if self._inner.is_error() else count  # `allowed` says what the error is

    def allowed(self) -> np.ndarray:
        """Bool [vocabulary]: the tokens that the answer may go on with. Raises ConfigError for a grammar that is too
        complex to say."""
        if self.finished:
            return np.ones(self._vocabulary, dtype=np.bool_)
        bits = np.frombuffer(self._inner.compute_bitmask(), dtype=np.uint8)
        self._raise_error()
        return np.unpackbits(bits, bitorder="little", count=self._vocabulary).view(np.bool_)

    def advance(self, token: int) -> None:
        """The answer has gone on with `token`. Raises ConfigError for one that is not allowed."""
        if self.finished:
            return
        if token in self._eos_ids and self.accepts(token):
            self.finished = True
        elif not self._inner.consume_token(token):
            self._raise_error()
            raise ConfigError(f"Token {token} was not allowed.")

    def forced_tokens(self, most: int) -> list[int]:
        """The tokens of the text that has to follow, as a tokenizer would divide it; `most` at most."""
        if self.finished or not self._inner.compute_ff_bytes():
            return []
        return list(self._inner.compute_ff_tokens()[:most])

    def _raise_error(self) -> None:
        if self._inner.is_error():
            raise ConfigError(
                f"The answer cannot go on, as its grammar is too complex ({_sentence(self._inner.get_error())}); make "
                "it simpler."
            )


AnyMatcher = Matcher | TriggeredMatcher


class Grammars:
    """Compiles constraints for one tokenizer and keeps the last CACHED of them. From any thread."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: int) -> None:
        """`vocabulary`: rows of the model's logits, which may be more than the tokenizer's tokens."""
        self._tokenizer, self._vocabulary = tokenizer, vocabulary
        self._lock = threading.Lock()
        self._library: tuple[frozenset[int], Any] | None = None  # llguidance's tokenizer for these end tokens
        self._token_bytes: list[bytes] = []
        self._byte_tokens: list[int] = []
        self._compiled: OrderedDict[tuple[Constraint, frozenset[int]], Any] = OrderedDict()

    def set_up(self, eos_ids: frozenset[int]) -> Any:
        """llguidance's tokenizer, for answers that end at `eos_ids`. Takes about a second the first time.

        Raises ConfigError where llguidance is not installed.
        """
        with self._lock:
            if self._library is None or self._library[0] != eos_ids:
                vocabulary = _Vocabulary(self._tokenizer, self._vocabulary, eos_ids)
                self._token_bytes, self._byte_tokens = vocabulary.tokens, vocabulary.byte_tokens
                self._library = eos_ids, _llguidance().LLTokenizer(vocabulary, eos_token=vocabulary.ends)
            return self._library[1]

    def matcher(self, constraint: Constraint, eos_ids: frozenset[int]) -> Matcher:
        """A matcher at the beginning of an answer that ends at `eos_ids`.

        Raises ConfigError for a constraint that cannot be honoured, with the reason.
        """
        key, tokenizer = (constraint, eos_ids), self.set_up(eos_ids)
        with self._lock:
            compiled = self._compiled.get(key)
        if compiled is None:
            compiled = _compile(constraint, tokenizer)
        with self._lock:
            self._compiled[key] = compiled
            self._compiled.move_to_end(key)
            while len(self._compiled) > CACHED:
                self._compiled.popitem(last=False)
            inner = compiled.deep_copy()
        return Matcher(inner, eos_ids, self._vocabulary)

    def triggered(
        self, trigger: str, constraint: Constraint, eos_ids: frozenset[int], *, once: bool = False
    ) -> TriggeredMatcher:
        """A matcher of an answer that is free until it says `trigger`, with which the grammar begins. `once`: it ends
        with the first text of the grammar.

        Raises ConfigError as `matcher`, and for a tokenizer that lacks a byte.
        """
        # Kept: the trigger may come when other grammars fill the cache.
        start = self.matcher(constraint, eos_ids)
        if -1 in self._byte_tokens:
            byte = self._byte_tokens.index(-1)
            raise ConfigError(
                f"The tokenizer has no token for the byte {byte}; an answer that a trigger holds needs all 256 of them."
            )
        return TriggeredMatcher(trigger, start, self._token_bytes, self._byte_tokens, once=once)

    def matcher_of(self, params: SamplingParams, eos_ids: frozenset[int]) -> AnyMatcher:
        """The matcher of an answer that `params` hold to something. Raises ConfigError as `matcher`."""
        assert params.constraint is not None
        if params.trigger is None:
            return self.matcher(params.constraint, eos_ids)
        return self.triggered(params.trigger, params.constraint, eos_ids, once=params.trigger_once)


def check(constraint: Constraint) -> None:
    """Raises ConfigError for a constraint that cannot be honoured, with the reason. Needs no tokenizer."""
    _llguidance()
    if reason := _why_not(constraint):
        raise ConfigError(reason)


@lru_cache(CHECKED)
def _why_not(constraint: Constraint) -> str:
    """Why a constraint cannot be honoured; empty for one that can."""
    library = _llguidance()
    try:
        wrong, messages = library.LLMatcher.validate_grammar_with_warnings(
            _grammar(constraint, library), limits=library.LLParserLimits(**LIMITS)
        )
    except ConfigError as error:
        return str(error)
    # A warning tells of something that would not be honoured.
    return str(_refusal(constraint[0], messages[0])) if wrong or messages else ""


def _compile(constraint: Constraint, tokenizer: Any) -> Any:
    """llguidance's matcher."""
    library = _llguidance()
    grammar = _grammar(constraint, library)
    matcher = library.LLMatcher(tokenizer, grammar, log_level=0, limits=library.LLParserLimits(**LIMITS))
    if matcher.is_error():
        raise _refusal(constraint[0], matcher.get_error())
    if warnings := matcher.get_grammar_warnings():
        raise _refusal(constraint[0], warnings[0])
    return matcher


def _refusal(kind: str, reason: str) -> ConfigError:
    return ConfigError(f"{kind} cannot be honoured: {_sentence(reason)}.")


def _sentence(reason: str) -> str:
    """llguidance's message in one line, without the lines of the grammar that it shows."""
    line = " ".join(" ".join(line for line in reason.splitlines() if not _EXCERPT.match(line)).split())
    return (line if len(line) <= 400 else line[:400] + " ...").rstrip(".")


def _grammar(constraint: Constraint, library: Any) -> str:
    """A constraint in llguidance's own form."""
    kind, text = constraint
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"{kind} has {len(text)} characters; expected {MAX_CHARACTERS} at most.")
    try:  # of texts in JSON, where it is an escape
        is_escaped = kind in ("json_schema", "choice") and r"\ud" in text
        (json.dumps(json.loads(text), ensure_ascii=False) if is_escaped else text).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{kind} holds half of a surrogate pair, which is no character.") from error
    except RecursionError as error:
        raise _refusal(kind, "it is nested too deeply") from error
    if kind == "json_schema":
        return _of_schema(text)
    if kind == "regex":
        if (len(text) - len(text.rstrip("\\"))) % 2:  # the library drops it
            raise _refusal("regex", "it ends with a backslash that escapes nothing")
        grammar = json.loads(library.LLMatcher.grammar_from_regex(with_plain_digits(text)))
        grammar["grammars"][0]["lark_grammar"] += NO_FORCING
        return json.dumps(grammar)
    if kind == "choice":
        # One terminal: as alternatives of a rule, 20,000 texts take seconds to check, and more than 2000 are refused.
        return "start: CHOICE\nCHOICE: " + " | ".join(_lark_strings(json.loads(text))) + NO_FORCING
    return _checked_lark(_lark(text, library)) + NO_FORCING


def with_plain_digits(regex: str) -> str:
    """`regex` with 0 to 9 for each \\d: the library means every script's digits, even some that Python lacks."""
    made, at, depth = list[str](), 0, 0
    while at < len(regex):
        piece = regex[at : at + 2] if regex[at] == "\\" or (depth and regex[at : at + 2] == "[:") else regex[at]
        if piece == r"\d":
            made.append("0-9" if depth else "[0-9]")
        else:
            made.append(piece)
            if piece == "[":
                depth += 1
                first = next((text for text in ("^]", "]") if regex.startswith(text, at + 1)), "")  # ends nothing there
                made.append(first)
                at += len(first)
            elif piece == "[:" and (end := regex.find(":]", at)) >= 0:
                made.append(regex[at + 2 : end + 2])
                at = end
            elif piece == "]":
                depth = max(0, depth - 1)
        at += len(piece)
    return "".join(made)


def _of_schema(text: str) -> str:
    try:
        schema = json.loads(text)
        options = schema.get("x-guidance", {})
        if isinstance(options, dict):  # else the library says what is wrong
            schema["x-guidance"] = {**ONE_SPACE, **options}
        rules = {"lark_grammar": "start: @answer" + NO_FORCING}
        return json.dumps({"grammars": [rules, {"name": "answer", "json_schema": schema}]})
    except RecursionError as error:
        raise _refusal("json_schema", "it is nested too deeply") from error


def is_gbnf(text: str) -> bool:
    """A grammar is llama.cpp's GBNF, and not Lark: it has a rule `name ::=`."""
    return _GBNF_RULE.search(text) is not None


def _lark_strings(texts: Iterable[str]) -> Iterable[str]:
    return (json.dumps(text, ensure_ascii=False).replace("\x7f", r"\u007f") for text in texts)


def _lark(text: str, library: Any) -> str:
    """A Lark grammar, or a GBNF one as Lark."""
    try:
        # The library takes the square of the time for a run of empty lines, and holds the interpreter's lock. It also
        # takes a Lark grammar for GBNF where `start` has options or a mark before it.
        grammar: str = library.grammar_from("gbnf" if is_gbnf(text) else "lark", re.sub(r"\n\s*\n", "\n", text))
    except (ValueError, RecursionError) as error:
        raise _refusal("grammar", str(error)) from error
    return grammar


def _checked_lark(text: str) -> str:
    """Raises ConfigError for what the library would do otherwise than a reader of the grammar expects."""
    rules = _LITERALS.sub(lambda found: found[0] if "" in found.groups() else '""', text)
    if named := re.search(r"<[^<>\s]*>", rules):
        raise ConfigError(
            f"grammar names the control token {named[0]}, and an answer is text alone; leave it out. The end of the "
            "answer needs none."
        )
    if option := re.search(r"\[[^\[\]]*\b(temperature|stop)\s*=", rules):
        instead = "give it beside the grammar" if option[1] == "temperature" else "use suffix= or lazy"
        raise ConfigError(f"grammar has a rule with {option[1]}=, which has no effect here; {instead}.")
    return text


def _llguidance() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise ConfigError(
            "Holding an answer to a schema or a grammar needs llguidance: pip install 'qwen2-audio[server]'."
        ) from error
    return llguidance


class _Vocabulary:
    """A tokenizer as llguidance reads it."""

    is_tokenizer_wrapper = True
    bos_token_id = None
    special_token_ids: tuple[int, ...] = ()

    def __init__(self, tokenizer: Tokenizer, size: int, eos_ids: frozenset[int]) -> None:
        """`size`: of the model's logits. Raises ConfigError where none of `eos_ids` is there."""
        self.ends = sorted(token for token in eos_ids if token < size)
        if not self.ends:
            raise ConfigError("The checkpoint names no token that ends an answer; set generation_config.eos_token_id.")
        self.eos_token_id = self.ends[0]
        letters = {byte if byte not in UNPRINTABLE else 256 + UNPRINTABLE.index(byte): byte for byte in range(256)}
        # A name that no grammar can spell, for ids that are no text: control tokens, and rows without a token.
        self.tokens = [_CONTROL + f"<[{token}]>".encode() for token in range(size)]
        added = tokenizer.added_tokens_decoder
        for spelling, token in tokenizer.get_vocab().items():
            if token >= size:
                continue
            if token in added and not added[token].special:
                self.tokens[token] = spelling.encode()
            elif token not in added:
                self.tokens[token] = spelling.translate(letters).encode("latin-1")
        ids = {text: token for token, text in enumerate(self.tokens)}
        self.byte_tokens = [ids.get(bytes([byte]), -1) for byte in range(256)]  # the token of each byte, or -1
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        """The ids of `text`, which holds no control token."""
        return self._tokenizer.encode(text, control_tokens=False)
