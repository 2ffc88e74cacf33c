"""Answers that are free until they say a trigger, and then held to a grammar until it is complete."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import pre_tokenizers
from tokenizers.models import BPE

from kit.small_processor import CONFIG, CONTROL
from qwen2_audio.engine.structured import grammar
from qwen2_audio.engine.structured.grammar import Grammars
from qwen2_audio.errors import ConfigError
from qwen2_audio.text.tokenizer import Tokenizer
from qwen2_audio.text.tokenizer_files import byte_level_bpe
from qwen2_audio.types import SamplingParams

pytest.importorskip("llguidance")

GRAMMAR = ("grammar", r'start: "<t>" /[0-9]{2}/ "."')


@pytest.fixture(scope="module")
def tokenizer():
    """Every byte a token, and some pairs, of which some hold more than the trigger's beginning or end."""
    vocab = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    pairs = [("Ġ", "<"), (">", "7"), (">", "x"), ("a", "<"), (".", "Ġ")]
    vocab |= {a + b: len(vocab) + number for number, (a, b) in enumerate(pairs)}
    backend = byte_level_bpe(BPE(vocab, pairs))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.add_special_tokens(CONTROL)
    return Tokenizer(backend, CONFIG)


@pytest.fixture
def matcher(tokenizer):
    ends = frozenset([tokenizer.convert_tokens_to_ids("<|im_end|>")])
    return Grammars(tokenizer, len(tokenizer)).triggered("<t>", GRAMMAR, ends)


def allowed(matcher, tokenizer) -> str:
    mask = matcher.allowed()
    assert mask.tolist() == [matcher.accepts(token) for token in range(len(tokenizer))]
    return "" if mask.all() else "".join(sorted(tokenizer.decode([token]) for token in np.flatnonzero(mask)))


@pytest.mark.parametrize("before", ["", " ", "a", "é ", "<<t", "<t <t", "b\n" * 40])
def test_from_the_trigger_to_the_end_of_the_grammar(matcher, tokenizer, before):
    for token in tokenizer.encode(f"{before}<t"):
        assert allowed(matcher, tokenizer) == ""
        matcher.advance(token)
    matcher.advance(tokenizer.encode(">")[0])
    assert allowed(matcher, tokenizer) == "0123456789" and not matcher.free
    matcher.advance(tokenizer.encode("4")[0])
    copied = matcher.copy()
    matcher.advance(tokenizer.encode("2")[0])
    assert allowed(matcher, tokenizer) == "." and allowed(copied, tokenizer) == "0123456789"
    assert tokenizer.decode(matcher.forced_tokens(4)) in ("", ".")
    matcher.advance(tokenizer.encode(".")[0])
    assert matcher.free and allowed(matcher, tokenizer) == ""
    for token in tokenizer.encode(" <t>7"):
        matcher.advance(token)
    assert allowed(matcher, tokenizer) == "0123456789"


@pytest.mark.parametrize("before", ["", " ", "a"])
def test_nothing_follows_what_is_said_once(tokenizer, before):
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    grammars = Grammars(tokenizer, len(tokenizer))
    for given, said in ((GRAMMAR, "<t>42."), (("grammar", 'start: "<t>"'), "<t>")):
        matcher = grammars.triggered("<t>", given, frozenset([end]), once=True)
        for token in tokenizer.encode(before + said):
            assert matcher.accepts(end) == matcher.free, "it may end where it is free"
            matcher.advance(token)
        for one in (matcher, matcher.copy()):
            assert np.flatnonzero(one.allowed()).tolist() == [end] and not one.free
        matcher.advance(end)


def test_a_trigger_that_goes_on_otherwise_is_text(matcher, tokenizer):
    """The model has said it by then: nothing is refused afterwards."""
    for token in [*tokenizer.encode("x<t"), tokenizer.get_vocab()[">x"]]:
        matcher.advance(token)
    assert matcher.free


def test_the_rest_of_a_character_in_front(matcher, tokenizer):
    """A token that holds the rest of a character, the trigger, and what follows it."""
    matcher._token_bytes = [*matcher._token_bytes]
    odd = tokenizer.encode("z")[0]
    matcher._token_bytes[odd] = b"\xa9<t>4"
    matcher.advance(odd)
    assert allowed(matcher, tokenizer) == "0123456789"
    matcher.advance(tokenizer.encode("2")[0])
    assert allowed(matcher, tokenizer) == "."


def test_a_tokenizer_without_a_byte_is_refused(tokenizer):
    ends = frozenset([tokenizer.convert_tokens_to_ids("<|im_end|>")])
    grammars = Grammars(tokenizer, len(tokenizer))
    grammars.set_up(ends)
    grammars._byte_tokens[200] = -1
    with pytest.raises(ConfigError, match=r"no token for the byte 200; .*all 256 of them"):
        grammars.triggered("<t>", GRAMMAR, ends)


def test_params():
    with pytest.raises(ConfigError, match="trigger is '<t>'"):
        SamplingParams(trigger="<t>", regex="a")
    with pytest.raises(ConfigError, match="trigger is ''"):
        SamplingParams(trigger="", grammar="start: x")
    with pytest.raises(ConfigError, match="trigger_once was given without a trigger"):
        SamplingParams(trigger_once=True, grammar="start: x")


@pytest.mark.parametrize("before", ["", " ", "a"])
def test_the_grammar_is_kept_for_the_trigger(tokenizer, monkeypatch, before):
    """It is not compiled again, which would be on the engine's thread, however many others were since, and whatever
    the trigger's first token has in front of it."""
    ends = frozenset([tokenizer.convert_tokens_to_ids("<|im_end|>")])
    grammars, compiled = Grammars(tokenizer, len(tokenizer)), []
    compile_ = grammar._compile
    matcher = grammars.triggered("<t>", GRAMMAR, ends)
    for number in range(grammar.CACHED):
        grammars.matcher(("regex", f"a{number}"), ends)
    monkeypatch.setattr(grammar, "_compile", lambda *given: compiled.append(given) or compile_(*given))
    for _ in range(2):
        for token in tokenizer.encode(before + "<t>"):
            matcher.advance(token)
        assert not matcher.free and allowed(matcher, tokenizer) == "0123456789"
        for token in tokenizer.encode("42."):
            matcher.advance(token)
        assert matcher.free
    assert compiled == []
