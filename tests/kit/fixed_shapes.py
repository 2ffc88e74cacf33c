"""A model so small that a test can run whole conversations on it, and a paged cache with something in it."""

import random

import torch

from kit.tiny import tiny_config
from qwen2_audio.engine.executor.forward_batch import ForwardBatch
from qwen2_audio.model.paged import PagedAttentionBatch, PagedStorage
from qwen2_audio.pretrained import Qwen2AudioForConditionalGeneration

PASTS = [5, 31, 32, 100, 63]  # within a block, at its last place, at the first of the next, three blocks on


class Spelling:
    all_special_tokens = ()
    eos_token = None

    def convert_tokens_to_ids(self, tokens):
        return []

    def decode(self, ids, *, skip_special_tokens=True):
        return "".join(f"{token} " for token in ids)

    def token_bytes(self, token):
        return f"{token} ".encode()


def small_model():
    config = tiny_config(
        {"encoder_layers": 1, "encoder_ffn_dim": 16},
        {"vocab_size": 200, "max_position_embeddings": 1024},
        audio_token_index=190,
    )
    torch.manual_seed(3)
    made = Qwen2AudioForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.dim() > 1 and "embed_positions" not in name:
                parameter.copy_(torch.randn_like(parameter) * 1.6 / parameter.shape[-1] ** 0.5)
    made.generation_config.eos_token_id = None
    return made


def filled_storage(model):
    """A storage with the keys and values of sequences of PASTS positions, their tables, and a token for each."""
    storage = PagedStorage(model.config.text_config, 40)
    blocks = list(range(40))
    random.Random(1).shuffle(blocks)
    tables = [[blocks.pop() for _ in range(past // 32 + 1)] for past in PASTS]
    ids = torch.randint(0, 190, (1, sum(PASTS)), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        written = PagedAttentionBatch(storage, tables, [0] * len(PASTS), PASTS)
        model.language_model(ids, position_ids=written.positions, past_key_values=written)
    return storage, tables, [11, 12, 13, 14, 15]


def packed_of(tables, pasts):
    ones = [1] * len(pasts)
    return ForwardBatch(tables, pasts, ones, ones)


@torch.no_grad()
def ordinary(model, storage, packed, tokens):
    return packed.run(model, storage, model.get_input_embeddings()(torch.tensor([tokens])))
