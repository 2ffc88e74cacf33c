"""The public model classes: the network with `from_pretrained`, `save_pretrained`, `generate`, and what Trainer, peft
and users' own code call."""

from .models import Qwen2AudioEncoder as Qwen2AudioEncoder
from .models import Qwen2AudioForConditionalGeneration as Qwen2AudioForConditionalGeneration
from .models import Qwen2AudioModel as Qwen2AudioModel
