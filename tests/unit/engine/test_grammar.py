"""What an answer is held to: which tokens fit, where it may end, and what is refused with which reason."""

from __future__ import annotations

import contextlib
import json
import random
import re
import time
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch

from kit.small_processor import CONTROL, small_tokenizer
from qwen2_audio.engine.structured import grammar
from qwen2_audio.engine.structured.constrained_sampler import best_allowed
from qwen2_audio.engine.structured.grammar import CACHED, Grammars
from qwen2_audio.errors import ConfigError
from qwen2_audio.text.tokenizer import Tokenizer
from qwen2_audio.types import SamplingParams

pytest.importorskip("llguidance")

ROWS = 300  # of the model: the tokenizer has 262 tokens
ADDRESS = {
    "type": "object",
    "properties": {"street": {"type": "string"}, "number": {"type": "integer"}, "kind": {"enum": ["home", "wörk"]}},
    "required": ["street", "number", "kind"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer():
    """Each byte a token."""
    return small_tokenizer()


@pytest.fixture(scope="module")
def ends(tokenizer):
    return frozenset(tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]))


@pytest.fixture(scope="module")
def grammars(tokenizer):
    return Grammars(tokenizer, ROWS)


@pytest.fixture
def matcher_of(grammars, ends):
    return lambda **given: grammars.matcher(SamplingParams(**given).constraint, ends)


def say(matcher, tokenizer, text):
    for token in tokenizer.encode(text, control_tokens=False):
        assert matcher.accepts(token), text
        matcher.advance(token)
    return matcher


def accepted(matcher, tokenizer, ends, text) -> bool:
    """`text` is a whole answer."""
    tokens = [*tokenizer.encode(text, control_tokens=False), min(ends)]
    return matcher.num_accepted(tokens) == len(tokens)


@pytest.mark.parametrize(
    ("given", "right", "wrong"),
    [
        ({"json_schema": ADDRESS}, '{"street": "Elm", "number": 7, "kind": "wörk"}', '{"street": "Elm"}'),
        ({"json_schema": ADDRESS}, '{"street": "<|im_end|>", "number": -3, "kind": "home"}', "{}"),
        ({"json_schema": '{"type": "integer"}'}, "-12", "1.5"),
        ({"regex": "(ab)+c?"}, "ababc", "aba"),
        ({"regex": "a/b"}, "a/b", "ab"),
        ({"regex": r"a\\"}, "a\\", "a"),
        ({"regex": ""}, "", "a"),
        ({"choice": ["yes", 'n"o\n', "\x01/"]}, 'n"o\n', "no"),
        ({"choice": ["yes", "yesterday", "\x01/\\"]}, "\x01/\\", "y"),
        ({"choice": "Ärger"}, "Ärger", "A"),
        ({"choice": ["a\x7f", ""]}, "a\x7f", "a"),
        ({"choice": ["a\x7f", ""]}, "", "a"),
        ({"grammar": 'start: "a" b+\nb: "b" | "c"'}, "abcb", "a"),
        ({"grammar": 'root ::= "x" [0-9]{2}'}, "x12", "x1"),
        ({"grammar": '?start: x\nx: "a"i'}, "A", "b"),
        ({"grammar": "start[lazy]: /a*b/"}, "aab", "a"),
        ({"grammar": 'start: "::="'}, "::=", ":"),
    ],
)
def test_what_an_answer_may_be(matcher_of, tokenizer, ends, given, right, wrong):
    assert accepted(matcher_of(**given), tokenizer, ends, right)
    assert not accepted(matcher_of(**given), tokenizer, ends, wrong)


def test_a_pydantic_class_is_a_schema(matcher_of, tokenizer, ends):
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Sound", name=(str, ...), loud=(bool, ...))
    assert accepted(matcher_of(json_schema=model), tokenizer, ends, '{"name": "dog", "loud": true}')


@pytest.mark.parametrize(
    "given",
    [{"json_schema": ADDRESS}, {"regex": "(a|[^x]b)*."}, {"choice": ["yes", "yesterday"]}, {"json_schema": {}}],
    ids=["schema", "regex", "choice", "anything"],
)
def test_the_mask_is_what_each_token_alone_is_told(matcher_of, tokenizer, given):
    """Along random answers, also where the grammar forces text: the mask has the tokens that are accepted, no other."""
    draws = random.Random(3)
    for _ in range(8):
        matcher = matcher_of(**given)
        for _ in range(25):
            if draws.random() < 0.5:
                matcher.forced_tokens(16)
            mask = matcher.allowed()
            assert mask.tolist() == [matcher.accepts(token) for token in range(ROWS)]
            matcher.advance(draws.choice(np.flatnonzero(mask).tolist()))
            if matcher.finished:
                break


def test_text_that_has_to_follow_may_be_divided_in_any_way(tiny_checkpoint):
    tokenizer = Tokenizer.from_pretrained(tiny_checkpoint)
    ends, text = frozenset([tokenizer.convert_tokens_to_ids("<|im_end|>")]), "What is that sound?"
    matcher = Grammars(tokenizer, 512).matcher(("choice", json.dumps([text])), ends)
    for _ in range(2):
        spelt = [tokenizer.decode([token]) for token in np.flatnonzero(matcher.allowed())]
        assert len(spelt) > 1 and all(text.startswith(part) for part in spelt)
        assert tokenizer.decode(matcher.forced_tokens(30)) in (text, text[:-1])


def test_control_tokens_and_rows_without_a_token_are_never_allowed(matcher_of, tokenizer, ends):
    never = [token for token in range(ROWS) if token >= len(tokenizer)]
    never += [token for token in tokenizer.convert_tokens_to_ids(CONTROL) if token not in ends]
    for start, given in (
        ('{"street": "', {"json_schema": ADDRESS}),
        ("", {"regex": "(?s:.*)"}),
        ("x", {"grammar": "start: /(?s:.*)/"}),
    ):
        mask = say(matcher_of(**given), tokenizer, start).allowed()
        assert not mask[never].any()
        assert mask[tokenizer.encode("y")[0]]


def test_an_answer_ends_only_where_its_text_is_complete(matcher_of, tokenizer, ends):
    matcher = matcher_of(json_schema=ADDRESS)
    for token in tokenizer.encode('{"street": "Elm", "number": 7, "kind": "home"'):
        assert not matcher.allowed()[sorted(ends)].any()
        matcher.advance(token)
    matcher.advance(tokenizer.encode("}")[0])
    assert np.flatnonzero(matcher.allowed()).tolist() == sorted(ends)
    assert [matcher.accepts(end) for end in sorted(ends)] == [True, True]
    matcher.advance(max(ends))
    assert matcher.finished
    matcher.advance(0)  # padding behind a finished answer
    assert matcher.allowed().all()


def test_a_token_that_does_not_fit_is_refused(matcher_of, tokenizer):
    matcher = matcher_of(regex="ab")
    with pytest.raises(ConfigError):
        matcher.advance(tokenizer.encode("b")[0])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_the_best_of_those_allowed(share):
    logits = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    logits[500:510] = logits.max() + 1  # the first of equal ones is taken
    allowed = np.random.default_rng(2).random(1000) < share
    allowed[[3, 505, 507]] = True
    before = logits.clone()
    assert best_allowed(allowed, logits) == int(logits.masked_fill(~torch.from_numpy(allowed), -torch.inf).argmax())
    assert torch.equal(logits, before)


def test_copies_go_on_by_themselves(matcher_of, tokenizer, ends):
    first = say(matcher_of(choice=["ab", "ac"]), tokenizer, "a")
    second = first.copy()
    say(first, tokenizer, "b")
    assert np.flatnonzero(first.allowed()).tolist() == sorted(ends)
    assert tokenizer.decode(np.flatnonzero(second.allowed()).tolist()) == "bc"


def test_forced_text_comes_as_tokens(matcher_of, tokenizer):
    matcher = matcher_of(json_schema=ADDRESS)
    forced = matcher.forced_tokens(64)
    assert '{"street": "'.startswith(tokenizer.decode(forced)) and len(forced) >= 10
    assert matcher.num_accepted(forced) == len(forced)
    assert matcher.forced_tokens(3) == forced[:3]
    assert say(matcher, tokenizer, '{"street": "E').forced_tokens(64) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"json_schema": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
        ({"json_schema": {"not": {"type": "string"}}}, "not"),
        ({"json_schema": {"if": {"type": "string"}, "then": {"maxLength": 3}}}, "if"),
        ({"json_schema": {"type": "string", "format": "klingon"}}, "klingon"),
        ({"json_schema": {"type": "wurst"}}, "wurst"),
        ({"json_schema": {"$ref": "https://example.org/schema.json"}}, "example.org"),
        ({"json_schema": {"type": "integer", "minimum": 5, "maximum": 3}}, "minimum"),
        ({"json_schema": {"type": "object", "x-guidance": 3}}, ""),
        ({"json_schema": {"type": "object", "not": {}, "x-guidance": {"lenient": True}}}, "not"),
        ({"regex": "a(?=b)"}, ""),
        ({"regex": r"a\bb"}, "lookarounds not supported"),
        ({"regex": "("}, ""),
        ({"regex": "a\\"}, "backslash"),
        ({"regex": "\ud800"}, "surrogate"),
        ({"choice": ["a", "\ud800"]}, "surrogate"),
        ({"json_schema": {"enum": ["\ud800"]}}, "surrogate"),
        ({"grammar": "start: nothing"}, "nothing"),
        ({"grammar": ""}, ""),
        ({"grammar": 'root ::= "x'}, ""),
        ({"grammar": 'start: "a" <|im_end|>'}, "<|im_end|>"),
        ({"grammar": 'start: "a" /[ <|im_end|>'}, "<|im_end|>"),
        ({"grammar": 'start: "a" <[257]>'}, "<[257]>"),
        ({"grammar": "start: a\na[temperature=0.7]: /b+/"}, "temperature"),
        ({"grammar": 'start: a "x"\na[stop="x"]: /.*/'}, "stop"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_its_reason(matcher_of, given, words):
    (kind,) = given
    for refuse in (lambda: matcher_of(**given), lambda: grammar.check(SamplingParams(**given).constraint)):
        with pytest.raises(ConfigError) as error:
            refuse()
        assert words in str(error.value) and str(error.value).startswith(kind)
        assert str(error.value).endswith(".") and "\n" not in str(error.value)
        assert "no_forcing" not in str(error.value), "lines that were not given"


def test_long_choices_and_enums(matcher_of, tokenizer, ends):
    texts = [f"country {number} of many" for number in range(5000)]
    assert accepted(matcher_of(choice=texts), tokenizer, ends, texts[4321])
    assert not accepted(matcher_of(choice=texts), tokenizer, ends, "country 5000 of many")
    assert accepted(matcher_of(json_schema={"enum": texts}), tokenizer, ends, json.dumps(texts[4321]))


@pytest.mark.parametrize("text", ['"<|im_end|>"', r"/<[a-z]+>/", '"[temperature=1]"', '%json {"const": "<b>"}'])
def test_literals_may_look_like_control_tokens(matcher_of, text):
    matcher_of(grammar=f"start: {text}  // <|im_end|>")


@pytest.mark.parametrize(
    "given",
    [
        {"choice": [f"word {number}" for number in range(20_000)]},
        {"json_schema": {"enum": [f"word {number}" for number in range(20_000)]}},
        {"regex": "(a{1,1000}){1,1000}"},
        {"regex": "(x+x+)+y" * 20},
        {"regex": "((((((a?){99}){99}){99}){99}){99}){99}"},
        {"regex": ".*a.{400}b.{400}c"},
        {"json_schema": {"type": "string", "maxLength": 10**6}},
        {"json_schema": {"type": "string", "pattern": "^(.{0,500}x){500}$"}},
        {"json_schema": {"anyOf": [{"type": "object", "properties": {f"k{n}": {}}} for n in range(300)]}},
        {"grammar": 'start: s\ns: s s | "a" | '},
        {"grammar": "start: a\n" + "\n".join(f"a{n}: a{n + 1} a{n + 1}" for n in range(30)) + '\na30: "x"\na: a0'},
        {"grammar": "start: " + "(" * 3000 + '"a"' + ")" * 3000},
        {"grammar": "root ::= " + "(" * 3000 + '"a"' + ")" * 3000},
        {"json_schema": '{"items": ' * 90 + "{}" + "}" * 90},
    ],
    ids=range(14),
)
def test_hostile_ones_cost_little(matcher_of, given):
    """Each is compiled, or refused in a sentence, and answers go on or end in one: time and memory are bounded."""
    started, draws, memory = time.process_time(), random.Random(1), peak_memory(start=True)
    with contextlib.suppress(ConfigError):
        matcher = matcher_of(**given)
        for _ in range(20):
            matcher.advance(draws.choice(np.flatnonzero(matcher.allowed()).tolist()))
    assert time.process_time() - started < 5
    assert peak_memory() - memory < 150e6


def peak_memory(*, start: bool = False) -> int:
    """Bytes that this process had at most since `start`; 0 where the system does not tell."""
    try:
        if start:
            Path("/proc/self/clear_refs").write_text("5")
        found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    except OSError:
        return 0
    return 1024 * int(found[1]) if found else 0


@pytest.mark.parametrize(
    "run", ["[", '"\\', "/\\", "\n", "\n "], ids=["brackets", "quotes", "slashes", "lines", "blank lines"]
)
def test_runs_of_one_letter_take_no_square_of_time(run):
    """Each took a second or more, and held the interpreter meanwhile."""
    start = 'root ::= "a"\n' if "\n" in run else 'start: "a"\n'
    grammar.check(("regex", "a"))  # llguidance is imported
    started = time.thread_time()
    with contextlib.suppress(ConfigError):
        grammar.check(("grammar", start + run * (16384 // len(run))))
    assert time.thread_time() - started < 0.5


def test_a_text_has_a_length(matcher_of):
    with pytest.raises(ConfigError, match="1048577 characters"):
        matcher_of(regex="a" * (grammar.MAX_CHARACTERS + 1))


def test_compiled_grammars_are_kept_and_not_for_ever(tokenizer, ends, monkeypatch):
    compiled = []
    compile_ = grammar._compile
    monkeypatch.setattr(grammar, "_compile", lambda *given: compiled.append(given) or compile_(*given))
    grammars = Grammars(tokenizer, ROWS)
    for _ in range(2):
        for number in range(CACHED):
            grammars.matcher(("regex", f"a{number}"), ends)
    assert len(compiled) == CACHED
    grammars.matcher(("regex", "b"), ends)
    grammars.matcher(("regex", "a0"), ends)
    assert len(compiled) == CACHED + 2 and len(grammars._compiled) == CACHED


def test_a_refusal_is_remembered(monkeypatch):
    asked = []
    written = grammar._grammar
    monkeypatch.setattr(grammar, "_grammar", lambda *given: asked.append(given) or written(*given))
    for _ in range(3):
        for constraint in (
            ("json_schema", '{"not": {"const": 17}}'),
            ("grammar", "start: a17"),
            ("grammar", "start: <17>"),
        ):
            with pytest.raises(ConfigError, match=r"cannot be honoured|names the control token"):
                grammar.check(constraint)
    assert len(asked) == 3
    assert grammar._why_not.cache_info().maxsize == grammar.CHECKED


def test_without_llguidance(tokenizer, ends, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ConfigError, match=r"pip install 'qwen2-audio\[server\]'"):
        Grammars(tokenizer, ROWS).matcher(("regex", "a"), ends)


def test_a_checkpoint_without_an_end(tokenizer):
    with pytest.raises(ConfigError, match="no token that ends an answer"):
        Grammars(tokenizer, ROWS).matcher(("regex", "a"), frozenset())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"regex": "a", "choice": ["b"]}, "regex and choice are given"),
        ({"json_schema": "{"}, "json_schema is no JSON"),
        ({"json_schema": "3"}, "json_schema is 3"),
        ({"json_schema": [1]}, r"json_schema is \[1\]"),
        ({"json_schema": {"a": float("nan")}}, "json_schema is no JSON"),
        ({"json_schema": {"a": object()}}, "json_schema is no JSON"),
        ({"regex": 3}, "regex is a int"),
        ({"choice": [1]}, "choice is"),
        ({"choice": []}, r"choice is \(\)"),
        ({"choice": []} | {"regex": "a"}, "regex and choice are given"),
    ],
)
def test_params_that_are_no_constraint(given, words):
    with pytest.raises(ConfigError, match=words):
        SamplingParams(**given)


def test_any_mapping_is_a_schema():
    held = SamplingParams(json_schema=MappingProxyType({"properties": MappingProxyType({"a": {}})}))
    assert held.constraint == ("json_schema", '{"properties": {"a": {}}}')


@pytest.mark.parametrize(
    ("regex", "wanted"),
    [
        (r"\d+", "[0-9]+"),
        (r"[\d.]\d", "[0-9.][0-9]"),
        (r"\\d\[\d\]", r"\\d\[[0-9]\]"),
        (r"[]\d]\d", "[]0-9][0-9]"),
        (r"[^]\d]\d", "[^]0-9][0-9]"),
        (r"[\]\d]", r"[\]0-9]"),
        (r"[[:alpha:]\d]\d", "[[:alpha:]0-9][0-9]"),
        (r"[:\d]", "[:0-9]"),
        (r"[a[\d]]\d", "[a[0-9]][0-9]"),
        (r"\D\w", r"\D\w"),
        ("a\\", "a\\"),
    ],
)
def test_a_digit_is_one_of_ten(regex, wanted):
    from qwen2_audio.engine.structured.grammar import with_plain_digits

    assert with_plain_digits(regex) == wanted
