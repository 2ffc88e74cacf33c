"""Questions to a model and to engines on it, asked by one process in the test and by two under torchrun.

As a program: FOLDER OUT WAY. What each process found goes to OUT.RANK.json.
"""

import json
import os
import sys

import numpy as np
import torch

import qwen2_audio as qa
from qwen2_audio.api.service import Service
from qwen2_audio.engine.executor.tp_worker import run_worker
from qwen2_audio.engine.settings import EngineSettings

RATE = 16_000


def clip(seconds, hertz):
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def ask(text, *clips):
    return [qa.user(text, audio=list(clips))] if clips else [qa.user(text)]


def model_says(model, processor):
    """Logits of a padded batch with clips, and tokens of every way to search."""
    texts = ["<|audio_bos|><|AUDIO|><|audio_eos|>What is that sound?", "How many people speak in this clip?"]
    inputs = processor(text=texts, audio=[clip(0.7, 440)], return_tensors="pt", padding=True)
    ways = {
        "greedy": {"do_sample": False},
        "seeded": {"do_sample": True, "seed": 7, "temperature": 1.5, "top_k": 0},
        "drawn": {"do_sample": True, "top_k": 0},
        "beams": {"num_beams": 3, "do_sample": False},
        "lookup": {"prompt_lookup_num_tokens": 3, "do_sample": False},
    }
    said = {"logits": model(**inputs).logits.float().tolist()}
    for name, options in ways.items():
        given = {k: v[:1] for k, v in inputs.items()} if name == "lookup" else inputs
        said[name] = model.generate(**given, max_new_tokens=20, **options).tolist()
    return said


def logits_in_bfloat16(folder, **options):
    model = qa.Qwen2AudioForConditionalGeneration.from_pretrained(folder, dtype="bfloat16", **options)
    return model(torch.arange(5, 40)[None]).logits.float().tolist()


def engine_says(model, processor):
    """Answers of several engines, one after the other: tokens, and how much of the prompt was cached."""
    greedy = qa.SamplingParams(temperature=0, max_tokens=40, logprobs=0)
    drawn = qa.SamplingParams(temperature=1.5, seed=3, n=2, max_tokens=20, logprobs=0)
    schema = {"type": "object", "properties": {"sound": {"enum": ["a dog", "rain"]}, "loud": {"type": "boolean"}}}
    held = qa.SamplingParams(temperature=0, max_tokens=40, logprobs=0, json_schema={**schema, "required": ["sound"]})
    talk = ask("What is that sound?", clip(2.0, 300))
    second = [*talk, qa.assistant("A dog."), *ask("And what is this?", clip(0.5, 900))]
    together = [
        (talk, greedy), (ask("How many people speak in this clip?" * 6), greedy), (talk, drawn),
        (ask("rain, thunder", clip(0.4, 200), clip(1.1, 600)), greedy), (ask("a dog"), drawn),
        (talk, held),
    ]  # fmt: skip
    said = {}
    for name, settings in {
        "whole": EngineSettings(kv_tokens=4096),
        "chunked": EngineSettings(kv_tokens=4096, max_num_batched_tokens=13, num_prompt_lookup_tokens=2),
        "small": EngineSettings(kv_tokens=512, max_num_batched_tokens=40),  # who finds no room is sent back
    }.items():
        service = Service(model, processor, settings)
        rounds = [together, [(second, greedy)], [(second, greedy), (ask("a dog"), greedy)]]
        said[name] = [answers(service, one) for one in rounds]
        service.close()
    return said


def answers(service, asked):
    handles = [service.submit(messages, params) for messages, params in asked]
    made = [one for handle in handles for one in handle.completions()]
    return [([token.token for token in one.logprobs], one.usage.cached_tokens > 0) for one in made]


def main(folder, out, way):
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    torch.manual_seed(rank)  # another random state in each process; loading makes it the first one's
    found = {}
    m = qa.load(folder, device="cpu", dtype="float32", tensor_parallel=True)
    if way == "model":
        text = m.model.language_model
        found["said"] = model_says(m.model, m.processor)
        found["share"] = sum(p.nbytes for p in text.model.layers.parameters()) + text.lm_head.weight.nbytes
        found["cache"] = m.model.new_cache(1, 10).nbytes
        found["bfloat16"] = logits_in_bfloat16(folder, tensor_parallel=True)
    if rank and way == "model":  # an engine in any process but the first is refused, and nobody waits for it
        try:
            m.service()
        except qa.ConfigError as error:
            found["error"] = str(error)
    found["followed"] = run_worker(m.model)
    if rank == 0:
        old = Service(m.model, m.processor, EngineSettings(kv_tokens=512)) if way == "model" else m.service()
        if way == "dies":
            answers(old, [(ask("a dog"), qa.SamplingParams(max_tokens=3))])
            os.kill(os.getpid(), 9)
        found["engine"] = engine_says(m.model, m.processor)
        try:
            answers(old, [(ask("a dog"), qa.SamplingParams(max_tokens=3))])
        except qa.ConfigError as error:
            found["old"] = str(error)
    with open(f"{out}.{rank}.json", "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
