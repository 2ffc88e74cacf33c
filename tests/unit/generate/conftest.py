"""A scripted model: the next token depends on the last one alone. Audio positions and clips are only counted."""

from types import SimpleNamespace

import pytest
import torch

from qwen2_audio.generate.config import GenerationConfig
from qwen2_audio.model.merge import EmbeddedPrompt

VOCABULARY, AUDIO_ID, CONTEXT = 32, 31, 64


class ScriptedCache:
    def __init__(self):
        self.length = 0

    def reorder(self, rows):
        pass

    def crop(self, length):
        self.length = min(self.length, length)


class ScriptedLanguageModel:
    """Logits 10 for the successor of a token, 5 for the runner-up, 0 for the rest."""

    def __init__(self, successor):
        self.successor = successor
        self.model = SimpleNamespace(embed_tokens=lambda ids: ids[..., None].float())
        self.calls = []

    def __call__(self, *, inputs_embeds, past_key_values, logits_to_keep, attention_mask, position_ids, **options):
        self.calls.append(
            {"new": inputs_embeds.shape[1], "mask": attention_mask, "positions": position_ids, "options": options}
        )
        if past_key_values is not None:
            past_key_values.length += inputs_embeds.shape[1]
        last = inputs_embeds[:, -logits_to_keep:, 0].long()
        logits = torch.zeros(*last.shape, VOCABULARY, dtype=torch.float32)
        logits.scatter_(2, last.apply_(lambda t: self.successor(t) % VOCABULARY)[..., None], 10.0)
        return SimpleNamespace(logits=logits, attentions=None, hidden_states=None)


class ScriptedModel:
    device = torch.device("cpu")

    def __init__(self, successor, **generation):
        text = SimpleNamespace(vocab_size=VOCABULARY, max_position_embeddings=CONTEXT)
        self.config = SimpleNamespace(text_config=text, audio_token_index=AUDIO_ID)
        self.generation_config = GenerationConfig(**generation)
        self.language_model = ScriptedLanguageModel(successor)
        self.encoded = 0

    def new_cache(self, batch, capacity=0):
        self.capacity = capacity
        return ScriptedCache()

    def embed_prompt(self, input_ids, input_features=None, attention_mask=None, feature_attention_mask=None):
        self.encoded += 1
        return EmbeddedPrompt(input_ids, attention_mask, input_ids[..., None].float())


@pytest.fixture
def counting():
    """The model that counts: after n comes n + 1."""
    return ScriptedModel(lambda token: token + 1)


@pytest.fixture
def scripted():
    """scripted(successor, **generation config) -> a model."""
    return ScriptedModel


class LetterTokenizer:
    """Id n is the n-th of the letters below."""

    letters = "abcdefghijklmnopqrstuvwxyz \n。字é�"

    def decode(self, ids, **_):
        ids = ids.tolist() if hasattr(ids, "tolist") else ids
        return "".join(self.letters[i] for i in ids)

    def encode(self, text):
        return [self.letters.index(c) for c in text]


@pytest.fixture
def letters():
    return LetterTokenizer()
