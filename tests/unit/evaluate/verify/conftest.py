"""A random checkpoint of two narrow layers in place of the official widths, and what the readable path says to it."""

import pytest
import torch

from qwen2_audio.evaluate.random_checkpoint import Shape
from qwen2_audio.evaluate.verify.subject import Truth, random_official, readable

CPU = torch.device("cpu")
TINY = Shape(2, 64, 2, 128, 2, 128, 2, 256, vocab_size=1600, audio_token_index=1539)


@pytest.fixture(scope="session")
def subject(tmp_path_factory):
    return random_official(tmp_path_factory.mktemp("random"), TINY)


@pytest.fixture(scope="session")
def truth(subject):
    return Truth.of(readable(subject, CPU), subject)


@pytest.fixture
def model(subject):
    return readable(subject, CPU)
