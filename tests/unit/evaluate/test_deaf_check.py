"""The deaf check: a nano whose projector is zeroed trips it, nano as it is does not; of a server texts are compared."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import qwen2_audio as qa
from kit.evaluation import GREEDY, TASK
from qwen2_audio.checkpoint.fingerprint import weights_fingerprint
from qwen2_audio.datasets.row import Sound
from qwen2_audio.errors import EvaluationError
from qwen2_audio.evaluate.clips import decode_clip, read_clip
from qwen2_audio.evaluate.deaf import check_hearing, refuse_deaf
from qwen2_audio.evaluate.local_model import LocalModel
from qwen2_audio.evaluate.question import Answer, Question
from qwen2_audio.evaluate.task import DeafCheck

CLIPS = ("capital", "command", "sum", "dog")


def questions(names=CLIPS, prompt="Transcribe the speech.", form="chat"):
    folder = qa.nano_path() / "clips"
    waves = [decode_clip(read_clip(Sound(str(folder / f"{name}.wav")))).waveform for name in names]
    return [Question(wave, prompt, GREEDY, form) for wave in waves]


@pytest.fixture(scope="module")
def nano():
    return LocalModel(qa.load("nano", device="cpu", dtype="float32"), {})


@pytest.mark.parametrize("form", ["chat", "base"])
def test_nano_hears(nano, form):
    found = check_hearing(nano, questions(form=form), DeafCheck())
    assert found.measure == "log-probability" and found.rows == len(CLIPS)
    assert found.change > 0.5 and found.hears
    refuse_deaf("nano", "asr", found)


@pytest.mark.parametrize("form", ["chat", "base"])
def test_nano_without_a_projector_does_not(form):
    chat = qa.load("nano", device="cpu", dtype="float32")
    with torch.no_grad():
        chat.model.multi_modal_projector.linear.weight.zero_()
    model = LocalModel(chat, {})
    found = check_hearing(model, questions(form=form), DeafCheck())
    assert found.change < 1e-4 and not found.hears
    with pytest.raises(
        EvaluationError, match="nano does not seem to hear: on 4 rows of asr the clip was exchanged, and"
    ):
        refuse_deaf(model.name, "asr", found)


def test_one_clip_is_exchanged_for_silence(nano):
    assert check_hearing(nano, questions(("sum",)), DeafCheck()).hears
    assert check_hearing(nano, questions(("sum", "sum")), DeafCheck()).hears


def test_the_log_probability_is_that_of_the_engine(nano):
    """Teacher-forced by the plain pass, and drawn greedily by the engine: the same numbers."""
    question = questions(("sum",))[0]
    messages, params = question.messages(), replace(GREEDY, logprobs=0)
    completion = nano.chat.chat(messages, params)
    spoken = [one.logprob for one in completion.logprobs][:-1]  # without the end of the turn
    assert nano.logprob(question, completion.text) == pytest.approx(float(np.mean(spoken)), abs=1e-4)


class Server:
    """An endpoint: texts only."""

    name, in_flight = "server", 2

    def __init__(self, answer):
        self.answer = answer

    def submit(self, question):
        text = self.answer(question.waveform)
        return lambda: Answer(text, 1, "stop")


@pytest.mark.parametrize(
    ("answer", "change"),
    [
        (lambda wave: "neutral", 0.0),
        (lambda wave: str(len(wave)), 0.0),  # it knows how long they are, and no more
        (lambda wave: str(float(np.abs(wave).sum())), 1.0),
        (lambda wave: "neutral" if np.abs(wave).max() > 0 else "nobody speaks", 1.0),
    ],
)
def test_of_a_server_texts_are_compared(answer, change):
    found = check_hearing(Server(answer), questions(), DeafCheck())
    assert (found.measure, found.change, found.hears) == ("text", change, change > 0)


def test_of_a_model_that_several_processes_share_texts_are_compared(nano, monkeypatch):
    monkeypatch.setattr(nano, "scores_answers", False)
    found = check_hearing(nano, questions(), DeafCheck())
    assert found.measure == "text" and found.change == 1.0


def test_a_fingerprint_changes_with_a_weight_and_with_the_options(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(1000))
    first = weights_fingerprint([tmp_path], {"dtype": "float32"})
    assert first == weights_fingerprint([tmp_path], {"dtype": "float32"})
    assert first != weights_fingerprint([tmp_path], {"dtype": "float32", "quantize": "int8"})
    weights.write_bytes(bytes(999) + b"\1")
    assert first != weights_fingerprint([tmp_path], {"dtype": "float32"})


def test_of_a_large_file_a_sample_is_hashed(tmp_path, monkeypatch):
    monkeypatch.setattr("qwen2_audio.checkpoint.fingerprint.WHOLE", 1000)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(8 << 20))
    first = weights_fingerprint([tmp_path], {})
    for place in (0, (8 << 20) - 1):
        data = bytearray(8 << 20)
        data[place] = 1
        weights.write_bytes(data)
        assert weights_fingerprint([tmp_path], {}) != first


def test_tasks_are_exempt_by_name():
    from qwen2_audio.evaluate.registry.tasks import TASKS

    assert [name for name, task in TASKS.items() if task.deaf is None] == ["voicebench-advbench", "nano"]
    assert TASK.deaf is not None
