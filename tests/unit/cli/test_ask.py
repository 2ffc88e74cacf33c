import json

import qwen2_audio as qa


def expected(chat, wav, text, **params):
    return chat.chat([qa.user(text, audio=wav)], qa.SamplingParams(**params))


def test_the_answer_goes_to_stdout_and_the_rest_to_stderr(cli, wav_file, tiny_chat):
    wav = wav_file("dog.wav")
    status, out, err = cli("ask", wav, "-p", "What is that sound?")
    assert status == 0
    assert out == expected(tiny_chat, wav, "What is that sound?").text + "\n"
    assert f"heard {wav}: 1.00 s, 25 audio tokens" in err
    assert "float32 on" in err


def test_json(cli, wav_file, tiny_chat, tiny_checkpoint):
    wavs = wav_file("a.wav"), wav_file("b.wav", 2.0, rate=8000)
    status, out, _ = cli("ask", *wavs, "-p", "?", "--json", "--max-tokens", 4, "--temperature", 0, "--dtype", "float32")
    report = json.loads(out)
    answer = expected(tiny_chat, list(wavs), "?", max_tokens=4, temperature=0)
    assert status == 0
    assert report.pop("seconds") > 0
    assert report == {
        "text": answer.text,
        "finish_reason": "length",
        "usage": {
            "prompt_tokens": answer.usage.prompt_tokens,
            "audio_tokens": 75,
            "completion_tokens": 4,
            "cached_tokens": 0,
            "total_tokens": answer.usage.prompt_tokens + 4,
        },
        "heard": [
            {"source": str(wavs[0]), "seconds": 1.0, "tokens": 25},
            {"source": str(wavs[1]), "seconds": 2.0, "tokens": 50},
        ],
        "model": str(tiny_checkpoint),
    }


def test_a_schema_or_grammar_saved_with_a_byte_order_mark(cli, wav_file, tmp_path):
    """As PowerShell and Notepad write it."""
    schema, grammar, wav = tmp_path / "schema.json", tmp_path / "answer.lark", wav_file("dog.wav")
    schema.write_text('{"enum": ["dog"]}', encoding="utf-8-sig")
    grammar.write_text('start: "cat"', encoding="utf-8-sig")
    assert cli("ask", wav, "-p", "?", "--json-schema", schema)[:2] == (0, '"dog"\n')
    assert cli("ask", wav, "-p", "?", "--grammar", grammar)[:2] == (0, "cat\n")


def test_without_a_question_the_clip_speaks_for_itself(cli, wav_file, tiny_chat):
    wav = wav_file("hello.wav")
    assert cli("ask", wav)[1] == expected(tiny_chat, wav, None).text + "\n"


def test_system_and_sampling_options_arrive(cli, wav_file, tiny_chat):
    wav = wav_file("dog.wav")
    status, out, _ = cli(
        *("ask", wav, "-p", "?", "--system", "Be brief.", "--seed", 3),
        *("--temperature", 1.2, "--top-p", 0.9, "--top-k", 40, "--device", "cpu"),
    )
    params = qa.SamplingParams(temperature=1.2, top_p=0.9, top_k=40, seed=3)
    answer = tiny_chat.chat([qa.system("Be brief."), qa.user("?", audio=wav)], params)
    assert (status, out) == (0, answer.text + "\n")


def test_a_dash_reads_the_sound_from_stdin(cli, wav_file, tiny_chat):
    wav = wav_file("dog.wav")
    status, out, err = cli("ask", "-", "-p", "?", stdin=wav.read_bytes())
    assert (status, out) == (0, expected(tiny_chat, wav, "?").text + "\n")
    assert "heard stdin: 1.00 s" in err


def test_an_answer_that_was_cut_says_so(cli, wav_file):
    _, _, err = cli("ask", wav_file("dog.wav"), "--max-tokens", 2)
    assert "The answer was stopped (length) after 2 tokens; see --max-tokens." in err


def test_clips_are_read_before_the_model_is_loaded(cli, wav_file, monkeypatch):
    monkeypatch.setattr("qwen2_audio.cli.terminal.load_model", lambda *_: 1 / 0)
    status, out, err = cli("ask", wav_file("good.wav"), "nope.wav")
    assert (status, out) == (2, "")
    assert "No such file: 'nope.wav'" in err
    status, _, err = cli("ask", wav_file("long.wav", 31.0), "--long", "refuse")
    assert status == 2
    assert "lasts 31 s, and 30 s are heard at a time" in err


def test_an_unknown_model_is_a_mistake(cli, wav_file):
    status, _, err = cli("ask", wav_file("dog.wav"), "--model", "./nowhere")
    assert status == 2
    assert "No folder './nowhere' here" in err


def test_what_does_not_fit_the_context_is_a_mistake(cli, wav_file):
    status, out, err = cli("ask", wav_file("dog.wav"), "--max-tokens", 5000)
    assert (status, out) == (2, "")
    assert "ask for max_tokens=" in err
