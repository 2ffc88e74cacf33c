"""LoRA for the Linears of encoder, projector and language model: y = W x + (alpha / rank) B A x; A and B are trained.

An adapted Linear keeps the names of its parameters; `lora_A` and `lora_B` are added, named as in peft's adapter files.
Hu et al. 2021, https://arxiv.org/abs/2106.09685.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import nn

from .checkpoint.adapter_config import ADAPTER_CONFIG_FILE, read_adapter_config
from .checkpoint.json_file import replacing, write_json
from .checkpoint.weights import canonical
from .errors import ConfigError, WeightsError
from .native import dense
from .quantize.linear import QuantizedLinear

PARTS = {"encoder": "audio_tower", "projector": "multi_modal_projector", "language_model": "language_model"}
LINEARS = (nn.Linear, QuantizedLinear)
CONFIG_NAME, WEIGHTS_NAME = ADAPTER_CONFIG_FILE, "adapter_model.safetensors"
FILES = (CONFIG_NAME, WEIGHTS_NAME)
FINGERPRINT = (
    "base_fingerprint"  # in the metadata of the adapter's tensors: peft warns of keys it does not know in the config
)
_KEY = re.compile(r"^(?:base_model\.model\.)?(?P<path>.+)\.lora_(?P<which>[AB])(?:\.default)?\.weight$")
# A prefix of our module paths, which are those of transformers 4 -> an expression that also matches transformers 5's.
_SPELLINGS = (
    ("audio_tower.", r"(?:model\.)?audio_tower\."),
    ("multi_modal_projector.", r"(?:model\.)?multi_modal_projector\."),
    ("language_model.model.", r"(?:model\.language_model|language_model\.model)\."),
    ("language_model.lm_head", r"(?:language_model\.)?lm_head"),
)


@dataclass(frozen=True)
class LoraConfig:
    """The Linears to adapt, and the hyperparameters.

    `targets` has a regular expression for each part to adapt ("encoder", "projector", "language_model"). It must match
    the last components of a Linear's path in that part: "q_proj|v_proj" matches in every layer,
    r"layers\\.3\\.self_attn\\.q_proj" in one layer.
    """

    rank: int = 16
    alpha: float = 32.0  # the adapter's output is multiplied by alpha / rank
    dropout: float = 0.0  # probability, on the adapter's input in training
    targets: Mapping[str, str] = field(default_factory=lambda: {"language_model": "q_proj|k_proj|v_proj|o_proj"})

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"LoRA's rank is {self.rank}; expected 1 or more.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"LoRA's dropout is {self.dropout}; expected 0 or more, and less than 1.")


class Adapter(nn.Module):
    """Mixin that adds a LoRA adapter to a Linear; it comes before the Linear's class among the bases."""

    in_features: int
    out_features: int

    def init_adapter(self, rank: int, scaling: float, dropout: float, device: torch.device) -> None:
        """Make A, random, and B, zeros, so that the adapted model initially equals the base model."""
        self.scaling, self.dropout, self.enabled = scaling, dropout, True
        # fp32 for any base, because updates of 1e-5 are lost in bf16.
        options: dict[str, Any] = {"bias": False, "device": device, "dtype": torch.float32}
        self.lora_A = nn.Linear(self.in_features, rank, **options)
        self.lora_B = nn.Linear(rank, self.out_features, **options)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = super().forward(x)
        if not self.enabled:
            return out  # type: ignore[no-any-return]
        down, up = self.lora_A.weight, self.lora_B.weight
        if not torch.is_grad_enabled() and not (self.training and self.dropout):
            return out + low_rank(x, down, up, self.scaling).to(out.dtype)  # type: ignore[no-any-return]
        inputs = F.dropout(x, self.dropout, self.training) if self.dropout else x
        delta = self.lora_B(self.lora_A(inputs.to(self.lora_A.weight.dtype)))
        return out + (delta * self.scaling).to(out.dtype)  # type: ignore[no-any-return]

    def merged(self) -> nn.Module:
        """A Linear without an adapter that computes the same. Raises ConfigError if the weight is quantised."""
        raise NotImplementedError


class LoraLinear(Adapter, nn.Linear):
    """A Linear with an adapter, which shares the parameters of the Linear that it is made from."""

    def __init__(self, linear: nn.Linear, rank: int, scaling: float, dropout: float) -> None:
        with torch.device("meta"):
            nn.Linear.__init__(self, linear.in_features, linear.out_features, bias=linear.bias is not None)
        self.weight, self.bias = linear.weight, linear.bias
        self.init_adapter(rank, scaling, dropout, linear.weight.device)
        self.train(linear.training)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A plain Linear with the weight W + scaling B A, summed in fp32 and cast to W's dtype."""
        with torch.device("meta"):
            plain = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        delta = self.lora_B.weight.float() @ self.lora_A.weight.float() * self.scaling
        weight = (self.weight.float() + delta).to(self.weight.dtype)
        plain.weight = nn.Parameter(weight, requires_grad=self.weight.requires_grad)
        plain.bias = self.bias
        return plain.train(self.training)


class LoraQuantizedLinear(Adapter, QuantizedLinear):
    """A quantised Linear with an fp32 adapter (QLoRA, https://arxiv.org/abs/2305.14314), which shares its codes."""

    def __init__(self, linear: QuantizedLinear, rank: int, scaling: float, dropout: float) -> None:
        sizes = (linear.in_features, linear.out_features)
        QuantizedLinear.__init__(self, *sizes, linear.form, bias=linear.bias is not None, device="meta")
        self.weight_codes, self.weight_scales, self.bias = linear.weight_codes, linear.weight_scales, linear.bias
        self.dequantizes = linear.dequantizes
        self.init_adapter(rank, scaling, dropout, linear.weight_codes.device)
        self.train(linear.training)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        for child in self.children():  # the quantised base has no children and does not apply `fn` to any
            child._apply(fn)
        return super()._apply(fn, recurse)

    def merged(self) -> nn.Module:
        raise ConfigError(
            "The model is quantised, and an adapter cannot be added to 4- or 8-bit weights; merge it into the plain "
            "checkpoint with qwen2-audio merge, then make the result small with qwen2-audio quantize."
        )


def low_rank(x: torch.Tensor, down: torch.Tensor, up: torch.Tensor, scaling: float) -> torch.Tensor:
    """What an adapter adds for x [..., in]: scaling B A x, in the dtype of A [rank, in] and B [out, rank], without
    gradients. On a CPU a row's result depends on no other row."""
    return dense.product(dense.product(x.to(down.dtype), down), up) * scaling


def _with_adapter(linear: nn.Module, rank: int, scaling: float, dropout: float) -> Adapter:
    """A plain or quantised Linear with a new adapter."""
    if isinstance(linear, QuantizedLinear):
        return LoraQuantizedLinear(linear, rank, scaling, dropout)
    return LoraLinear(cast(nn.Linear, linear), rank, scaling, dropout)


def inject(model: nn.Module, config: LoraConfig) -> list[str]:
    """Freeze `model` and add an adapter to each Linear that `config.targets` matches; returns their paths.

    The Linears may be quantised. Raises ConfigError if the model already has an adapter, or if an expression is invalid
    or matches no Linear.
    """
    if adapted(model):
        raise ConfigError("The model has an adapter already; merge it first, or load the model again.")
    paths = [path for part, pattern in config.targets.items() for path in _targets(model, part, pattern)]
    if not paths:
        raise ConfigError(f"LoRA has no targets; name one of {', '.join(PARTS)} with an expression.")
    head, embedding = (getattr(model, f"get_{kind}_embeddings")() for kind in ("output", "input"))
    tied = isinstance(head, nn.Linear) and head.weight is getattr(embedding, "weight", None)
    if "language_model.lm_head" in paths and tied:
        raise ConfigError("lm_head shares its weight with the embedding, so it cannot be adapted alone; leave it out.")
    model.requires_grad_(False)
    for path in paths:
        linear = model.get_submodule(path)
        _replace(model, path, _with_adapter(linear, config.rank, config.alpha / config.rank, config.dropout))
    return paths


def _targets(model: nn.Module, part: str, pattern: str) -> list[str]:
    if part not in PARTS:
        raise ConfigError(f"LoRA knows no part {part!r}; expected {', '.join(PARTS)}.")
    try:
        expression = re.compile(rf"(?:.*\.)?(?:{pattern})")
    except re.error as error:
        raise ConfigError(f"LoRA's expression for the {part}, {pattern!r}, is not one: {error}.") from None
    linears = [n for n, m in model.get_submodule(PARTS[part]).named_modules() if isinstance(m, LINEARS)]
    paths = [f"{PARTS[part]}.{name}" for name in linears if expression.fullmatch(name)]
    if not paths:
        names = ", ".join(sorted({name.rpartition(".")[2] for name in linears}))
        raise ConfigError(f"LoRA's expression for the {part}, {pattern!r}, matches no Linear; there are {names}.")
    return paths


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    owner, _, leaf = path.rpartition(".")
    setattr(model.get_submodule(owner), leaf, module)


def adapted(model: nn.Module) -> dict[str, Adapter]:
    """The adapted Linears of `model` by path; {} for a model without an adapter."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Adapter)}


@contextlib.contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Inside this context, `model` computes without its adapter."""
    states = {module: module.enabled for module in adapted(model).values()}
    for module in states:
        module.enabled = False
    try:
        yield
    finally:
        for module, enabled in states.items():
            module.enabled = enabled


def merge(model: nn.Module) -> None:
    """Add the adapter to the weights; afterwards `model` is a plain model that can be saved.

    Raises ConfigError for a quantised model, which is not changed.
    """
    for path, module in adapted(model).items():
        _replace(model, path, module.merged())


def base_fingerprint(model: nn.Module) -> str:
    """A hash of the weights that neither an adapter nor quantisation changes: the norms and biases, as bfloat16.

    Training in another precision does not change it, any other training of the model does.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, module in sorted(model.named_modules(), key=lambda pair: pair[0]):
        kept = (
            module.bias if isinstance(module, LINEARS) else getattr(module, "weight", None) if "norm" in name else None
        )
        if isinstance(kept, torch.Tensor) and kept.dim() == 1:
            digest.update(name.encode())
            digest.update(kept.detach().bfloat16().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def save_adapter(model: nn.Module, folder: str | Path, base: str, fingerprint: str | None = None) -> None:
    """Write the adapter as peft's two files, with tensor names of transformers 5.

    `base` is the name of the checkpoint that the adapter belongs to; `fingerprint` its `base_fingerprint`, which
    `attach` compares (None: that of `model`). Raises ConfigError for a model without an adapter.
    """
    from safetensors.torch import save_file

    modules = adapted(model)
    if not modules:
        raise ConfigError("The model has no adapter to save.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    first = next(iter(modules.values()))
    rank = first.lora_A.out_features
    tensors = {
        f"base_model.model.{_in_transformers_5(path)}.lora_{which}.weight": layer.weight.detach().cpu()
        for path, module in modules.items()
        for which, layer in (("A", module.lora_A), ("B", module.lora_B))
    }
    metadata = {"format": "pt", FINGERPRINT: fingerprint or base_fingerprint(model)}
    with replacing(folder / WEIGHTS_NAME) as temporary:
        save_file({name: t.contiguous() for name, t in tensors.items()}, temporary, metadata=metadata)
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "inference_mode": True,
        "r": rank, "lora_alpha": first.scaling * rank, "lora_dropout": first.dropout, "bias": "none",
        "target_modules": _target_expression(list(modules)), "modules_to_save": None, "fan_in_fan_out": False,
        "init_lora_weights": True, "use_rslora": False, "use_dora": False, "rank_pattern": {}, "alpha_pattern": {},
    }  # fmt: skip
    write_json(folder / CONFIG_NAME, config)


def _in_transformers_5(path: str) -> str:
    """The path of a Linear in transformers 5. With transformers 5, peft loads all tensors by these paths, but by the
    older paths only those of the language model's layers."""
    if path.startswith("language_model.lm_head"):
        return path.removeprefix("language_model.")
    return "model." + path.replace("language_model.model.", "language_model.", 1)


def _target_expression(paths: list[str]) -> str:
    """A regular expression that matches exactly these modules, by their paths in transformers 4 and 5."""
    layers: dict[str, list[str]] = {}  # path with {} in place of the layer's number -> numbers
    for path in paths:
        number = re.search(r"\.layers\.(\d+)\.", path)
        template = path if number is None else path.replace(f".layers.{number[1]}.", ".layers.{}.", 1)
        layers.setdefault(template, []).append("" if number is None else number[1])
    alternatives = []
    for template, numbers in layers.items():
        prefix, expression = next((p, s) for p, s in _SPELLINGS if template.startswith(p))
        suffix = re.escape(template.removeprefix(prefix)).replace(r"\{\}", f"(?:{'|'.join(numbers)})")
        alternatives.append(expression + suffix)
    return "|".join(alternatives)


@dataclass(frozen=True)
class LowRank:
    """What an adapter adds to one Linear, y = W x + scaling B A x."""

    path: str  # of the Linear, in the model
    down: torch.Tensor  # A [rank, in], in the file's dtype
    up: torch.Tensor  # B [out, rank]
    scaling: float


def attach(model: nn.Module, folder: str | Path) -> list[str]:
    """Add the adapter in `folder`, which peft or `save_adapter` wrote, to the model, frozen; returns the paths.

    Raises as `read_adapter`.
    """
    parts = read_adapter(model, folder)
    for part in parts:
        module = _with_adapter(model.get_submodule(part.path), len(part.down), part.scaling, 0.0)
        with torch.no_grad():
            module.lora_A.weight.copy_(part.down)
            module.lora_B.weight.copy_(part.up)
        _replace(model, part.path, module.requires_grad_(False))
    return [part.path for part in parts]


def read_adapter(model: nn.Module, folder: str | Path) -> list[LowRank]:
    """The adapter in `folder`, which peft or `save_adapter` wrote, for `model`, which is not changed.

    Raises:
        WeightsError: files are missing or damaged, not of a plain LoRA on unchanged weights, or made for a model of
            another shape.
        ConfigError: the model already has an adapter.
    """
    folder = Path(folder)
    config, tensors = _read(folder)
    modules = dict(model.named_modules())
    if adapted(model):
        raise ConfigError("The model has an adapter already; merge it first, or load the model again.")
    parts = []
    for path, pair in tensors.items():
        linear = modules.get(path)
        if not isinstance(linear, LINEARS) or set(pair) != {"A", "B"}:
            problem = "lacks lora_A or lora_B of" if isinstance(linear, LINEARS) else "adapts"
            raise WeightsError(f"{folder} {problem} {path}, which does not fit this model; it belongs to another one.")
        down, up = pair["A"], pair["B"]
        if (down.shape[1], up.shape[0]) != (linear.in_features, linear.out_features) or down.shape[0] != up.shape[1]:
            raise WeightsError(
                f"{folder} has lora_A {list(down.shape)} and lora_B {list(up.shape)} for {path}, a Linear of "
                f"{linear.in_features} to {linear.out_features}; it belongs to another model."
            )
        rank = len(down)
        scaling = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
        parts.append(LowRank(path, down, up, scaling))
    _check_base(model, folder, config)
    return parts


def _check_base(model: nn.Module, folder: Path, config: Mapping[str, Any]) -> None:
    """Warn where the adapter was made for a model with other weights."""
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS_NAME, framework="pt") as file:
        made_for = (file.metadata() or {}).get(FINGERPRINT)
    if made_for is not None and made_for != base_fingerprint(model):
        base = config.get("base_model_name_or_path") or "another checkpoint"
        warnings.warn(
            f"The adapter {folder} was made for {base}, and this model has other weights, so that its "
            "answers may be wrong; load the checkpoint that it was trained on.",
            stacklevel=4,
        )


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, torch.Tensor]]]:
    """The adapter's config, and its tensors: path -> {"A": [rank, in], "B": [out, rank]}."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for name in FILES:
        if not (folder / name).is_file():
            raise WeightsError(f"{folder} has no {name}; an adapter is a folder with {' and '.join(FILES)}.")
    config = read_adapter_config(folder)
    try:
        stored = load_file(folder / WEIGHTS_NAME)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{folder / WEIGHTS_NAME} is not a whole safetensors file ({error}).") from None
    out: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in stored.items():
        match = _KEY.match(key)
        if match is None or tensor.dim() != 2 or not tensor.numel() or not tensor.is_floating_point():
            raise WeightsError(f"{folder / WEIGHTS_NAME} holds {key!r}, which is no weight of LoRA on a Linear.")
        path = canonical(match["path"] + ".weight").removesuffix(".weight")
        pair = out.setdefault(path, {})
        if match["which"] in pair:
            raise WeightsError(f"{folder / WEIGHTS_NAME} has lora_{match['which']} of {path} twice, in two spellings.")
        pair[match["which"]] = tensor
        if not tensor.isfinite().all():
            raise WeightsError(f"{folder / WEIGHTS_NAME} has NaN or infinite numbers in {key!r}; train it again.")
    if not out:
        raise WeightsError(f"{folder / WEIGHTS_NAME} holds no weights; expected lora_A and lora_B of some Linears.")
    return config, out
