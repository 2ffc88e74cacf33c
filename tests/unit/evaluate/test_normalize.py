"""The normalisers make what the authors' own code made of the same texts (goldens/), and of 10,000 random ones."""

import json
import random
import sys
from pathlib import Path

import pytest
from rapidfuzz.distance import Levenshtein
from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer
from whisper_normalizer.english import EnglishSpellingNormalizer

from qwen2_audio.errors import ConfigError
from qwen2_audio.evaluate.normalize import whisper
from qwen2_audio.evaluate.normalize.cantonese import to_simplified
from qwen2_audio.evaluate.normalize.chinese import cardinal, normalize_chinese
from qwen2_audio.evaluate.normalize.official import clean, tokens
from qwen2_audio.evaluate.normalize.whisper import basic_normalizer, english_normalizer

GOLDENS = Path(__file__).parent / "goldens"
RANDOM_TEXTS = 10_000


def golden(name):
    return json.loads((GOLDENS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def fresh():
    """Normalisers that are loaded again, and afterwards once more."""
    whisper.english_normalizer.cache_clear()
    yield
    whisper.english_normalizer.cache_clear()


def test_chinese_text_norm():
    vectors = golden("cn_tn")
    assert len(vectors) == 335
    assert [(text, normalize_chinese(text)) for text, _ in vectors] == [(text, spoken) for text, spoken in vectors]


def test_a_quantity_of_any_size_is_read():
    assert cardinal("20000000000000000") == "两京"
    assert cardinal("1" + "0" * 44) == "一载"
    assert normalize_chinese(f"{'7' * 5000}元")  # nothing that a model may say ends in an error
    assert normalize_chinese("٣个") == "三个"  # other scripts' digits are digits for the regular expressions


def test_whisper_normalisers():
    english, basic = english_normalizer(), basic_normalizer()
    rows = golden("whisper_norm")
    assert len(rows) == 102
    for row in rows:
        found = (english(row["in"]), basic(row["in"]), basic(english(row["in"])))
        assert found == (row["english"], row["basic"], row["english_then_basic"]), row["in"]


SPOKEN = (
    "kinda sorta dunno cause 'cause because one two twenty hundred thousand million point half and a oh double triple "
    "percent dollars cents pounds minus plus first second Mr. Dr. won't can't it's been he's got colour centre 1 2 3.5 "
    "$20 £3 50% 1,000 2nd 1960s . , ! ? - – ' \" ( ) [ ] < > école naïve œuvre 中文 ½ <|en|> uh um hmm o'clock y'all "
    "let's U.S. a.m. archaeology"
)
WORDS = SPOKEN.split()
SIGNS = "abcdefgh ijk'.,-$£%0123456789()[]éœß½中 \n"


def random_texts(seed):
    draw = random.Random(seed)
    for number in range(RANDOM_TEXTS):
        if number % 4:
            text = " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, 12)))
        else:
            text = "".join(draw.choice(SIGNS) for _ in range(draw.randint(0, 40)))
        yield text.upper() if draw.random() < 0.3 else text


def outcome(normalizer, text):
    try:
        return str(normalizer(text)).strip()
    except Exception as error:
        return type(error).__name__


def test_random_texts_against_another_implementation():
    """transformers' own, with OpenAI's table of spellings."""
    theirs = EnglishTextNormalizer(EnglishSpellingNormalizer().mapping), BasicTextNormalizer()
    ours = english_normalizer(), basic_normalizer()
    for text in random_texts(7):
        for mine, other in zip(ours, theirs, strict=True):
            assert outcome(mine, text) == outcome(other, text), text


def test_rules_that_openai_never_had_are_found_out(fresh, monkeypatch):
    monkeypatch.setattr(whisper, "ADDED_LATER", ())
    expected = (
        r"^whisper-normalizer makes 'kind of sort of do not know because' of \"KINDA SORTA DUNNO 'cause\", and OpenAI's"
    )
    with pytest.raises(ConfigError, match=expected):
        english_normalizer()


def test_without_the_package_one_sentence_says_how_to_install_it(fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "whisper_normalizer.english", None)
    expected = r"^The official word error rate needs whisper-normalizer: pip install 'qwen2-audio\[eval\]'\.$"
    with pytest.raises(ConfigError, match=expected):
        english_normalizer()


@pytest.mark.parametrize("language", ["en", "zh", "yue", "fr"])
def test_the_official_chain(language):
    pairs = golden("wer_chain")
    assert sum(map(len, pairs.values())) == 56
    for pair in pairs[language]:
        reference, answer = tokens(pair["ref"], language), tokens(pair["hyp"], language)
        assert (reference, answer) == (pair["ref_tok"], pair["hyp_tok"])
        assert (Levenshtein.distance(reference, answer), len(reference)) == (pair["edits"], pair["ref_len"])


def test_tags_are_spaces_and_chinese_has_none():
    assert clean("<|en|> hello   there , you <|endoftext|>!", "en") == "hello there, you!"
    assert clean("<|zh|>你 好 , 吗", "zh") == "你好,吗"


def test_cantonese_needs_its_own_extra(monkeypatch):
    assert to_simplified("軟體嗰個") == "软件𠮶个"
    monkeypatch.setitem(sys.modules, "zhconv.zhconv", None)
    with pytest.raises(
        ConfigError, match=r"zhconv, which has another licence .*pip install 'qwen2-audio\[eval-yue\]'\.$"
    ):
        to_simplified("嗰")
