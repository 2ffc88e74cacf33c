"""Steps of fixed shape do nothing that a CUDA graph forbids; and of the capture, which needs a GPU, what it is told."""

import contextlib
import copy
import inspect

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kit.fixed_shapes import PASTS, filled_storage, ordinary, packed_of, small_model
from qwen2_audio import lora
from qwen2_audio.engine.executor import cuda_graphs as graphs
from qwen2_audio.engine.executor.cuda_graphs import Buffers, Capture, step
from qwen2_audio.inputs.collate import to_device


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture
def filled(model):
    return filled_storage(model)


class ForbiddenError(AssertionError):
    pass


class OnlyTheDevice(TorchDispatchMode):
    """Fails on whatever waits for the device, depends on a value, or brings data from elsewhere."""

    NAMES = (
        "_local_scalar_dense", "item", "nonzero", "masked_select", "unique", "lift_fresh", "is_nonzero", "equal",
        "bincount", "repeat_interleave.Tensor",
    )  # fmt: skip

    def __init__(self, device):
        super().__init__()
        self.device, self.seen = device, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen += 1
        name = str(func).removeprefix("aten.")
        if name.startswith(self.NAMES):
            raise ForbiddenError(name)
        if name.startswith("index") and any(
            leaf.dtype in (torch.bool, torch.uint8) for leaf in tree_leaves(args[1]) if isinstance(leaf, torch.Tensor)
        ):
            raise ForbiddenError(f"{name} with a mask")
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, out)):
            if isinstance(leaf, torch.Tensor) and leaf.device.type != self.device:
                raise ForbiddenError(f"{name} on {leaf.device}")
        return out


def on_meta(model, storage):
    """Both where a device would be: tensors there have no values, so that whoever looks at one fails."""
    storage = copy.deepcopy(storage)
    for side in (storage.keys, storage.values):
        side[:] = [one.to("meta") for one in side]
    return copy.deepcopy(model).to("meta"), storage


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("adapted", [False, True], ids=["plain", "adapter"])
@torch.no_grad()
def test_nothing_in_a_step_is_forbidden_in_a_graph(model, filled, device, adapted):
    storage, _, _ = filled
    if adapted:
        model = copy.deepcopy(model)
        lora.inject(model, lora.LoraConfig(rank=2))
        model.eval()
    if device == "meta":
        model, storage = on_meta(model, storage)
    inputs = torch.zeros(8, 2 + 4, dtype=torch.int64, device=device)
    buffers = Buffers(inputs, inputs, torch.zeros(8, 200, device=device), torch.zeros_like(inputs[:, :2]))
    step(model, storage, buffers)  # the warm-up, in which constants are made
    with OnlyTheDevice(device) as watch:
        step(model, storage, buffers)
    assert watch.seen > 100


@torch.no_grad()
def test_the_watch_sees_what_is_forbidden(model, filled):
    """The ordinary pass is full of it; and each single thing is noticed."""
    storage, tables, tokens = filled
    with pytest.raises(ForbiddenError), OnlyTheDevice("cpu"):
        ordinary(model, storage, packed_of(tables, PASTS), tokens)
    x = torch.arange(4.0)
    meta = x.to("meta")
    for bad in (
        lambda: float(x[1]),
        lambda: x.nonzero(),
        lambda: x[x > 1],
        lambda: torch.tensor([1.0]),
        lambda: x.index_put_((x > 1,), x[0]),
    ):
        with pytest.raises(ForbiddenError), OnlyTheDevice("cpu"):
            bad()
    with pytest.raises(ForbiddenError), OnlyTheDevice("meta"):
        meta.copy_(x)
    with pytest.raises(ForbiddenError), OnlyTheDevice("meta"):
        x.to("meta")


# -- the capture, as far as it goes without a GPU: who is called, in which order, with what


class FakeCuda:
    """Stands for torch.cuda: writes down what it is told."""

    def __init__(self):
        self.told = []

    def note(self, word):
        self.told.append(word)
        return contextlib.nullcontext()

    def install(self, monkeypatch):
        fake, real = self, torch.cuda

        class Stream:
            def __init__(self, name="aside"):
                self.name = name

            def wait_stream(self, other):
                fake.note(f"{self.name} waits for {other.name}")

        class Graph:
            def replay(self):
                fake.note("replay")

        def graph(*args, **options):
            inspect.signature(real.graph.__init__).bind(None, *args, **options)
            return self.note(f"capture on {options['stream'].name} from {options['pool']}")

        replaced = {
            "device": lambda device: self.note(f"device {device}"), "stream": lambda one: self.note(f"on {one.name}"),
            "Stream": Stream, "current_stream": lambda: Stream("here"), "CUDAGraph": Graph,
            "graph_pool_handle": lambda: self.note("pool") and "the pool",
        }  # fmt: skip
        monkeypatch.setattr(graphs.torch.cuda, "graph", graph)
        for name, value in replaced.items():
            assert hasattr(real, name)
            monkeypatch.setattr(graphs.torch.cuda, name, value)


def test_a_capture_warms_up_aside_and_takes_its_memory_from_the_one_pool(monkeypatch):
    fake = FakeCuda()
    fake.install(monkeypatch)
    capture = Capture(torch.device("cuda:1"))
    for _ in range(2):
        replay = capture(lambda: fake.note("step"))
    one = ["aside waits for here", "on aside", "step", "step", "here waits for aside", "capture on aside from the pool"]
    assert fake.told == ["device cuda:1", "pool", *one, "step", "device cuda:1", *one, "step"]
    replay()
    assert fake.told[-1] == "replay"


def test_to_a_gpu_a_tensor_goes_through_pinned_memory_without_waiting():
    class Told:
        def pin_memory(self):
            return self

        def to(self, device, non_blocking=False):
            return device, non_blocking

    cuda = torch.device("cuda")
    assert to_device(Told(), cuda) == (cuda, True)
    x = torch.ones(3)
    assert to_device(x, torch.device("cpu")) is x
