"""report.html and the table: figures, aligned words, players, and nothing from outside."""

import json
import re
import warnings
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from kit.evaluation import TASK, KnowingModel, small_list
from kit.page import CHROMIUM
from qwen2_audio.datasets.row import Sound
from qwen2_audio.evaluate.clips import decode_clip, read_clip
from qwen2_audio.evaluate.foreign import import_answers
from qwen2_audio.evaluate.registry.tasks import find_task
from qwen2_audio.evaluate.report.page import write_report
from qwen2_audio.evaluate.report.players import Players, encode
from qwen2_audio.evaluate.report.table import table_lines
from qwen2_audio.evaluate.results import read_results, score_results
from qwen2_audio.evaluate.run import Run

HOSTILE = "<script>alert(1)</script> <img src=x onerror=alert(1)> \" ' & \ud800"


class Page(HTMLParser):
    """What is in a page: tags that must be closed are, in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def reported(folder, answers, examples, task=TASK):
    model = KnowingModel(examples)
    model.answers |= dict(zip(model.answers, answers, strict=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Run(folder, model, hearing_check=False).ask([(task, examples)])
    results = read_results(folder)
    scores = score_results(results)
    return write_report(results, scores).read_text(encoding="utf-8"), scores


def test_words_are_aligned_and_coloured(tmp_path):
    examples = small_list(tmp_path / "data", 3)
    answers = ["the cat barks at at night", "turn on light", "what is one plus one"]
    text, _ = reported(tmp_path / "out", answers, examples)
    assert text.count('class="row"') == 2  # those with errors
    assert '<span class="changed"><i>dog</i><i>cat</i></span>' in text
    assert '<span class="added"><i>&nbsp;</i><i>at</i></span>' in text
    assert '<span class="lost"><i>the</i><i>&nbsp;</i></span>' in text
    assert text.count("<audio controls") == 2
    assert "substitutions <b>1</b>" in text and "insertions <b>1</b>" in text


def test_a_hostile_answer_is_text_and_the_page_fetches_nothing(tmp_path):
    examples = [replace(example, id=HOSTILE, source=HOSTILE) for example in small_list(tmp_path / "data", 1)]
    text, _ = reported(tmp_path / "out", [HOSTILE], examples)
    tags = Page(text).tags
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in tags}
    assert "&lt;script&gt;alert(1)" in text
    links = [value for _, given in tags for name, value in given.items() if name in ("src", "href")]
    assert links and all(value.startswith("data:audio/") for value in links)
    assert "default-src 'none'" in text


def test_rows_without_an_answer_are_named(tmp_path):
    examples = small_list(tmp_path / "data", 3)
    (tmp_path / "data" / "001.wav").write_bytes(b"damaged")
    text, scores = reported(tmp_path / "out", [], examples)
    assert "Rows without an answer (1)" in text and "001.wav" in text
    assert any("1 of 3 rows are not scored: no answer." in line for line in table_lines(scores))


def test_players_have_a_budget_and_gone_clips_are_counted(tmp_path):
    (example, other) = small_list(tmp_path, 2, seconds=2.0)
    sounds = {"here": example.sound, "gone": Sound(str(tmp_path / "gone.wav")), "more": other.sound}
    players = Players(lambda task, row: sounds.get(row), budget=20_000)
    assert players.player("asr", "here").startswith('<audio controls preload="metadata" src="data:audio/mpeg;base64,')
    assert players.player("asr", "gone") == players.player("asr", "unknown") == players.player("asr", "more") == ""
    assert (players.missing, players.left_out) == (2, 1)


def test_an_encoded_clip_is_the_clip(tmp_path):
    (example,) = small_list(tmp_path, 1, seconds=2.0)
    clip = decode_clip(read_clip(example.sound))
    kind, data = encode(clip.waveform)
    assert kind == "audio/mpeg" and len(data) < 12_000
    (tmp_path / "again.mp3").write_bytes(data)
    assert decode_clip(read_clip(Sound(str(tmp_path / "again.mp3")))).seconds == pytest.approx(2.0, abs=0.15)


def test_clips_are_found_again_where_the_data_were(tmp_path):
    """Rows inside a table have no file of their own; the task's data are read again."""
    import qwen2_audio.evaluate.report.page as page

    examples = small_list(tmp_path / "data", 2)
    text, _ = reported(tmp_path / "out", ["wrong", "wrong"], examples)
    rows = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    renamed = [json.dumps({**row, "audio": f"table.parquet#{number}"}) + "\n" for number, row in enumerate(rows)]
    (tmp_path / "out" / "manifest.jsonl").write_text("".join(renamed))
    lines = [json.dumps({"id": example.id, "audio": example.id, "text": "x"}) + "\n" for example in examples]
    (tmp_path / "data" / "list.jsonl").write_text("".join(lines))
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    (tmp_path / "out" / "run.json").write_text(
        json.dumps({**run, "data": {"asr": str(tmp_path / "data" / "list.jsonl")}})
    )
    results = read_results(tmp_path / "out")
    assert page.write_report(results, score_results(results)).read_text().count("<audio") == text.count("<audio") == 2


def test_published_figures_and_a_confusion_matrix(tmp_path):
    rows = [
        {"gt": "Cough", "response": "Sniff" if number < 2 else "Cough", "source": "vocalsound_test"}
        for number in range(9)
    ]
    (tmp_path / "answers.json").write_text(json.dumps(rows))
    results = read_results(import_answers(tmp_path / "answers.json", find_task("vocalsound"), tmp_path / "out"))
    scores = score_results(results)
    text = write_report(results, scores).read_text()
    Page(text)
    assert "paper <b>93.92</b> (-16.14" in text and '<line class="golden"' in text
    assert re.search(r"<th>cough</th><td [^>]*></td>.*<td [^>]*>7</td>.*<td [^>]*>2</td>", text)
    assert "Always &#x27;cough&#x27; would be right in 100.0 %." in text
    table = table_lines(scores)
    assert table[1].startswith("vocalsound, accuracy, strict") and "paper 93.92 (-16.14" in table[1]


def test_answers_in_other_words_are_told_of(tmp_path):
    rows = [{"gt": "joy", "response": "happy", "source": "meld_test"}] * 3
    (tmp_path / "answers.json").write_text(json.dumps(rows))
    scores = score_results(read_results(import_answers(tmp_path / "answers.json", find_task("meld"), tmp_path / "out")))
    told = "\n".join(table_lines(scores))
    assert "Read strictly 0.0 % are right, with synonyms 100.0 %: the answers are in other words" in told
    assert "3 of the official list's 3719 rows." in told


def test_what_guessing_would_give_is_told(tmp_path):
    row = {
        "id": "1",
        "question": "What?",
        "choices": ["Dog", "Cat"],
        "answer": "Dog",
        "model_output": "I hear something.",
    }
    (tmp_path / "answers.json").write_text(json.dumps([row]))
    scores = score_results(
        read_results(import_answers(tmp_path / "answers.json", find_task("mmau-mini"), tmp_path / "out"))
    )
    told = "\n".join(table_lines(scores))
    assert "1 answers name no choice, and count as wrong; none was guessed." in told
    assert "Guessing would be right in 50.0 %." in told


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_in_a_browser_it_is_whole_and_plays(tmp_path):
    from playwright.sync_api import sync_playwright

    examples = small_list(tmp_path / "data", 4, seconds=1.5)
    reported(tmp_path / "out", ["nothing at all"] * 4, examples)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1180, "height": 900})
        said = []
        page.on("console", lambda message: said.append(message.text))
        page.goto(f"file://{tmp_path}/out/report.html")
        page.wait_for_function("[...document.querySelectorAll('audio')].every(a => a.duration > 1)")
        for width in (1180, 400):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), f"{width} px"
        browser.close()
    assert said == []
