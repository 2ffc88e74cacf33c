import json

import pytest


def test_probabilities_as_bars_and_as_json(cli, wav_file, tiny_chat):
    clip = wav_file("a.wav")
    asked = ("decide", clip, "-p", "What is it?", "-c", "dog=it barks", "-c", "rain")
    status, out, err = cli(*asked)
    expected = tiny_chat.decide(str(clip), {"question": "What is it?", "choices": {"dog": "it barks", "rain": ""}})
    assert status == 0 and out.startswith("What is it?\n") and "dog" in out and "label mass" in err
    assert f"heard {clip}: 1.00 s, 25 audio tokens" in err
    (found,) = json.loads(cli(*asked, "--json")[1])
    assert list(found["probabilities"].values()) == pytest.approx(list(expected.probabilities), abs=1e-5)


def test_several_questions_from_a_file(cli, wav_file, tmp_path):
    questions = [{"question": "Is it loud?"}, {"question": "How loud?", "levels": ["low", "high"]}]
    (tmp_path / "q.json").write_text(json.dumps(questions), encoding="utf-8-sig")  # as some editors save it
    status, out, _ = cli("decide", wav_file("a.wav"), "--questions", tmp_path / "q.json", "--json")
    yes, scale = json.loads(out)
    assert status == 0 and 0 < yes["probability"] < 1 and 0 < scale["score"] < 1
    status, out, _ = cli("decide", wav_file("a.wav"), "-p", "How loud?", "--level", "low", "--level", "high", "--words")
    assert status == 0 and "score" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Give one question"),
        (("-p", "?", "-c", "a"), "1 choices"),
        (("-p", "?", "-c", "a", "--level", "b"), "exclude each other"),
        (("-p", "?", "-c", "a", "-c", "a"), "twice"),
        (("--questions", "none.json"), "cannot be read"),
        (("--questions", "q.json", "--words"), "belong to --prompt"),
    ],
)
def test_what_is_wrong_is_said_before_the_model_is_loaded(cli, wav_file, arguments, message):
    status, out, err = cli("decide", wav_file("a.wav"), *arguments)
    assert (status, out) == (2, "") and message in err and "float32 on" not in err
