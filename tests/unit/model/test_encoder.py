"""One layer of the encoder on its own."""

import pytest
import torch

from kit.tiny import AUDIO
from qwen2_audio.checkpoint.config import Qwen2AudioEncoderConfig
from qwen2_audio.model.encoder import Qwen2AudioEncoderLayer


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return Qwen2AudioEncoderLayer(Qwen2AudioEncoderConfig(**AUDIO)).eval()


@torch.no_grad()
def test_sums_beyond_float16_stop_below_its_largest_number(layer):
    """As in the reference: 1000 below 65504, of either sign, instead of infinities that become NaN a layer later."""
    signs = torch.tensor([1.0, -1.0]).repeat(8)
    layer.fc2.bias.copy_(60_000 * signs)
    x = (60_000 * signs).expand(1, 3, 16)
    out, _ = layer.half()(x.half())
    assert torch.equal(out, torch.tensor(64_504.0).half() * signs.half().expand(1, 3, 16))
