"""Nano's vocabulary, learnt once a session."""

import pytest
from recipes.nano.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer()
