"""What is said of a clip names its kind and no other, or says that none can be named."""

import numpy as np
import pytest

from qwen2_audio.evaluate.nano.mix import Clip
from qwen2_audio.evaluate.nano.questions import abstains
from qwen2_audio.evaluate.nano.sounds.kinds import NAMED
from qwen2_audio.evaluate.nano.wording import WHAT, name_sound
from qwen2_audio.evaluate.nano.words import ABSTENTIONS, WORDS, kinds_named


@pytest.mark.parametrize("kind", NAMED)
def test_everything_said_of_a_kind_names_it_and_nothing_else(kind):
    rng = np.random.default_rng(0)
    for style in WHAT:
        for _ in range(8):
            assert kinds_named(name_sound(Clip(kind, 1.0, -20.0), style, rng)) == {kind}
    for caption in WORDS[kind].captions:
        assert kinds_named(caption) == {kind}


@pytest.mark.parametrize("kind", list(ABSTENTIONS))
def test_abstentions_name_no_sound_and_count_as_such(kind):
    for sentence in (*ABSTENTIONS[kind].sentences, ABSTENTIONS[kind].caption):
        assert kinds_named(sentence) == {kind}
    assert all(abstains(sentence) for sentence in ABSTENTIONS[kind].sentences)


def test_an_answer_that_names_two_kinds_names_two():
    assert kinds_named("I hear a dog, or it may be a cat.") == {"dog", "cat"}
    assert kinds_named("I do not know, perhaps a dog.") == {"dog"}
    assert kinds_named("This is the sound of a scattered crowd.") == set()
