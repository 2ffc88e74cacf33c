"""A peer in the same run: transformers on nano over the same lists, by the same code, to the same digits."""

import json
import shutil
import warnings
from dataclasses import replace

import pytest
import torch

import qwen2_audio as qa
from qwen2_audio.evaluate.layouts.find import find_examples
from qwen2_audio.evaluate.local_model import LocalModel
from qwen2_audio.evaluate.predictions import read_predictions
from qwen2_audio.evaluate.question import Answer, fitted, form_of
from qwen2_audio.evaluate.registry.tasks import find_task
from qwen2_audio.evaluate.registry.warnings import CheckpointFacts
from qwen2_audio.evaluate.results import read_results, score_results
from qwen2_audio.evaluate.run import Run

transformers = pytest.importorskip("transformers")

TEXTS = {
    "capital": "What is the capital of France?", "command": "Open the gate in the kitchen.",
    "sum": "What is seven plus five?",
    "dog": "Woof woof.", "bell": "Ding dong.", "rain": "It rains.", "siren": "A siren.",
}  # fmt: skip
BASE_PROMPT, QUESTION = "Recognize the speech:", "What do you hear?"
ANSWERS = {
    "dog": "This is a dog barking.",
    "bell": "I hear a bell.",
    "rain": "Rain.",
    "piano": "It is a piano.",
    "glass": "Glass.",
}


class Transformers:
    """The reference behind `evaluate.question.Model`, one question after another."""

    name, fingerprint, in_flight = "transformers", "reference", 1

    def __init__(self, folder):
        self.settings, self.dropped = {}, ()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.processor = transformers.AutoProcessor.from_pretrained(folder)
            self.model = transformers.Qwen2AudioForConditionalGeneration.from_pretrained(
                folder, dtype=torch.float32
            ).eval()

    def form(self, task):
        return form_of(task, is_base=False)

    def facts(self, task):
        return CheckpointFacts()

    def submit(self, question):
        if question.form == "base":
            text = f"<|audio_bos|><|AUDIO|><|audio_eos|>{question.prompt}"
        else:
            content = [{"type": "audio", "audio_url": "a.wav"}, {"type": "text", "text": question.prompt}]
            conversation = [{"role": "user", "content": content}]
            text = self.processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
        inputs = self.processor(text=text, audio=[question.waveform], sampling_rate=16_000, return_tensors="pt")
        params = question.params
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            ids = self.model.generate(
                **inputs, do_sample=False, max_new_tokens=params.max_tokens, min_new_tokens=params.min_tokens,
                repetition_penalty=params.repetition_penalty,
            )  # fmt: skip
        new = ids[0, inputs.input_ids.shape[1] :]
        text = self.processor.decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return lambda: Answer(text, len(new), "stop")

    def close(self):
        pass


@pytest.fixture(scope="module")
def models():
    folder = qa.nano_path()
    return Transformers(folder), LocalModel(qa.load("nano", device="cpu", dtype="float32"), {})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lists")
    for clip in (qa.nano_path() / "clips").glob("*.wav"):
        shutil.copy(clip, folder)
    lists = {
        "asr": [{"audio": f"{name}.wav", "text": text} for name, text in TEXTS.items()],
        "base": [{"audio": f"{name}.wav", "text": text, "prompt": BASE_PROMPT} for name, text in TEXTS.items()],
        "qa": [{"audio": f"{name}.wav", "question": QUESTION, "answer": text} for name, text in ANSWERS.items()],
    }  # fmt: skip
    for name, rows in lists.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize("name", ["asr", "base", "qa"])
def test_the_same_transcripts_and_scores(models, data, tmp_path, name):
    task = find_task("qa" if name == "qa" else "asr")
    task = replace(task, decoding=replace(task.decoding, max_tokens=40))
    examples = list(find_examples(task, data / f"{name}.jsonl"))
    found = {}
    for model in models:
        asked, rows = (task, examples) if name == "base" else fitted(model, task, examples)
        Run(tmp_path / model.name, model).ask([(asked, rows)])
        results = read_results(tmp_path / model.name)
        scores = score_results(results)["tasks"][task.id]
        scores.pop("signature")  # it names the model
        found[model.name] = scores, {row.id: row.text for row in results.predictions}
    theirs, ours = found.values()
    assert ours == theirs
    assert len(set(ours[1].values())) > 2, "different clips, different answers"
    forms = json.loads((tmp_path / "nano" / "run.json").read_text())["tasks"][task.id]["form"]
    assert forms == ("base" if name == "base" else "chat")


def test_endings_are_counted_alike(models, data, tmp_path):
    """Tokens as usage counts them, the end of the turn among them."""
    task = find_task("asr")
    for model in models:
        asked, rows = fitted(model, task, list(find_examples(task, data / "asr.jsonl"))[:2])
        Run(tmp_path / model.name, model, hearing_check=False).ask([(asked, rows)])
    theirs, ours = (read_predictions(tmp_path / model.name / "predictions.jsonl") for model in models)
    assert [one.tokens for one in ours] == [one.tokens for one in theirs]
