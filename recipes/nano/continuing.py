"""The stages that go on from a finished checkpoint to real voices: from one that is named, this work folder's own, or
the shipped nano.

    Kokoro's clips -> clips of people -> encoder (heads, then hearing) -> fine-tuning -> mistakes -> DPO
    -> aligner, windows, confidence, made again for the encoder as it is now

The vocabulary stays that of the checkpoint.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from qwen2_audio.checkpoint.locate import nano_path
from qwen2_audio.evaluate.nano.speech.engines import check_engines
from qwen2_audio.inputs.processor import Qwen2AudioProcessor
from qwen2_audio.longform.settings import FILE as TRANSCRIPTION
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration
from qwen2_audio.train import dpo, sft
from qwen2_audio.train.optim import muon

from . import kokoro
from .clips import Library, Shelf, open_library
from .corpus import write_conversations
from .crowd import Maker
from .ctc import judge
from .hear import HEADS, HEAR, Hearing, MixedStream
from .loop import Stage, adamw, processes, train
from .network import finish, save_checkpoint
from .pairs import write_pairs
from .people import PEOPLE
from .said import lines
from .stages import FIRST, Plan, configured, scaled

HELD_BACK = 10  # one clip of people for development beside so many for training
ROWS = 1.8  # conversations, for each clip of both libraries
WINDOW = 8.0  # s; of longer clips fewer conversations are kept, so that windows of several utterances are among them


def origin(plan: Plan) -> Path:
    """The checkpoint that is gone on from: the plan's, or this work folder's, or else the shipped one."""
    if plan.start is not None:
        return plan.start
    own = plan.work / "checkpoint"
    return own if own.is_dir() else nano_path()


def finished(plan: Plan) -> Path:
    """The newest checkpoint there is: after these stages, before them, or the shipped one."""
    folder = plan.work / "finished"
    return folder if folder.is_dir() else origin(plan)


def say_lines(plan: Plan) -> None:
    """Fetch Kokoro and say every line that has no clip yet."""
    check_engines(training=True)
    made = kokoro.make(lines()[: plan.lines], kokoro.folder_of(plan.work), plan.workers)
    print(f"{made} clips were made, in {kokoro.folder_of(plan.work)}")


def people_library(plan: Plan, split: str = "train") -> Library:
    """Clips of people, made first if they are not there yet."""
    count = plan.people if split == "train" else max(1, plan.people // HELD_BACK)
    maker = Maker(split, kokoro.folder_of(plan.work), plan.lines)
    return open_library(split, count, plan.work / "clips", plan.workers, maker, f"people-{split}")


def make_people(plan: Plan) -> None:
    """The clips of people, and those of the first lessons that are heard beside them."""
    check_engines(training=True)
    for split in ("dev", "train"):
        people_library(plan, split)
        plan.library(split)


def hear(plan: Plan) -> None:
    """The encoder learns the new voices: `heads.pt`, `hear.pt`, and the checkpoint `heard`."""
    model = Qwen2AudioForConditionalGeneration.from_pretrained(origin(plan)).float().train()
    torch.manual_seed(plan.seed)  # the same heads in every process
    network = Hearing(model)

    def stream(stage: Stage) -> MixedStream:
        return MixedStream(plan.library(), people_library(plan), stage, plan.seed, processes())

    first, heads = scaled(HEADS, plan), network.heads
    batches = stream(first)
    train(first, heads, adamw([(heads, first.lr)]), lambda step: network.first_loss(batches(step)), plan.work)
    then, learning = scaled(HEAR, plan), network.learning
    mixed = stream(then)
    network.tower.requires_grad_(True)
    train(
        then, learning, muon(learning, then.lr, decay=0.02), lambda step: network.hearing_loss(mixed(step)), plan.work
    )
    if not FIRST:
        return
    for name, library in {"old": plan.library("dev"), "people": people_library(plan, "dev")}.items():
        print(f"{name} clips, development split: {judge(network, library, 300)}")
    tokenizer = Qwen2AudioProcessor.from_pretrained(origin(plan)).tokenizer
    save_checkpoint(model, model.config, tokenizer, plan.work / "heard")


def write_people_data(plan: Plan) -> None:
    """Conversations about clips of both libraries, and those without any."""
    folder = plan.work / "data"
    held_back = Shelf(plan.library("dev"), people_library(plan, "dev"))
    write_conversations(held_back, PEOPLE, 200, plan.seed + 4, folder / "people-held-back.jsonl", "dev")
    library = Shelf(plan.library(), people_library(plan))
    count = round(ROWS * len(library))
    write_conversations(library, PEOPLE, count, plan.seed + 3, folder / "people.jsonl", short=WINDOW)


def fine_tune_people(plan: Plan) -> None:
    """Supervised fine-tuning of all parts on everything."""
    sft.run(configured("people", "heard", plan))


def find_people_mistakes(plan: Plan) -> None:
    """What it now says wrongly about clips of the development split, inventions from strange words among it."""
    library = Shelf(plan.library("dev"), people_library(plan, "dev"))
    path = plan.work / "data" / "people-dpo.jsonl"
    print(write_pairs(plan.work / "people" / "final", library, plan.seed, path, people=True))


def prefer_people(plan: Plan) -> None:
    """DPO on these pairs; the result is the finished nano, in `finished`."""
    trained = dpo.run(configured("people-dpo", "people/final", plan))
    if FIRST:
        finish(trained, plan.work / "finished")
        shutil.copy(nano_path() / TRANSCRIPTION, plan.work / "finished" / TRANSCRIPTION)


def make_aligner(plan: Plan) -> None:
    """Times of words: a head on the newest encoder."""
    from qwen2_audio.pretrained import Qwen2AudioEncoder

    from .aligner import make

    check_engines(training=True)
    folder = finished(plan)
    plan.work.mkdir(parents=True, exist_ok=True)
    path = (plan.work if folder == nano_path() else folder) / "aligner.safetensors"
    print(f"{make(Qwen2AudioEncoder.from_pretrained(folder), plan.seed, path)}\n{path}")


def settle(plan: Plan) -> None:
    """How the finished nano hears long recordings: one utterance a window or several, and when it is in doubt."""
    from .settling import choose_confidence, choose_windows

    check_engines(training=True)
    clips = Maker("dev", kokoro.folder_of(plan.work), plan.lines)
    folder = plan.work / "finished"
    print(choose_windows(folder, clips))
    print(choose_confidence(folder, clips))
