"""The metrics of a run: one line of JSON per step, the same for TensorBoard, and a plot of the loss at the end."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..checkpoint.json_file import replacing
from ..errors import ConfigError, TrainingError
from .lines import append

NAME, PICTURE, EVENTS = "metrics.jsonl", "loss.png", "tensorboard"


class Metrics:
    """metrics.jsonl: `{"step": 1, "loss": ...}` for training, `{"step": 1, "eval_loss": ...}` for evaluation."""

    def __init__(self, output: Path, step: int, *, tensorboard: str = "off", writes: bool = True) -> None:
        """Go on after `step`: lines of later steps, which came after the last checkpoint of a killed run, are removed.

        tensorboard: "on", "off", or "auto" (on where it is installed): write events to `tensorboard` in `output`.
        writes: False in processes other than the first.
        Raises TrainingError where the file cannot be written, ConfigError as `uses_tensorboard` does.
        """
        self.path = output / NAME
        self._writes, self._events = writes, None
        if not writes:
            return
        self._events = event_writer(output / EVENTS, step) if uses_tensorboard(tensorboard) else None
        output.mkdir(parents=True, exist_ok=True)
        earlier = [line for line in read(self.path) if line["step"] <= step] if step else []
        try:
            with replacing(self.path) as temporary:
                temporary.write_text("".join(json.dumps(line) + "\n" for line in earlier), encoding="utf-8")
        except OSError as error:
            raise TrainingError(f"Cannot write {self.path}: {error.strerror}.") from None

    def add(self, **values: Any) -> None:
        """Append a line; `step` is one of `values`. Raises TrainingError where it cannot be written."""
        if not self._writes:
            return
        append(self.path, values)
        for name, value in values.items():
            if self._events is not None and name != "step":
                group = "evaluation" if name.startswith("eval_") else "training"
                self._events.add_scalar(f"{group}/{name.removeprefix('eval_')}", value, values["step"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._events is not None:
            self._events.close()


def uses_tensorboard(tensorboard: str) -> bool:
    """Whether "on", "off" or "auto" means that events are written. Raises ConfigError for "on" without TensorBoard."""
    installed = find_spec("tensorboard") is not None
    if tensorboard == "on" and not installed:
        raise ConfigError(
            "tensorboard is 'on', and TensorBoard is not installed; pip install 'qwen2-audio[tensorboard]', or set it "
            "to 'auto'. metrics.jsonl has the same numbers."
        )
    return installed and tensorboard != "off"


def event_writer(folder: Path, step: int) -> Any:
    """TensorBoard's writer; it hides what a killed run wrote for steps after `step`."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file, without an incomplete last one; empty where there is no file."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def draw(output: Path) -> Path | None:
    """Draw loss.png beside metrics.jsonl and return its path, None without matplotlib. Raises OSError."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    lines = read(output / NAME)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    train = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    evaluated = [(line["step"], line["eval_loss"]) for line in lines if "eval_loss" in line]
    if train:
        axes.plot(*zip(*train, strict=True), color="#9bd", linewidth=0.8, label="training")
        axes.plot(*zip(*_smooth(train), strict=True), color="#38a", linewidth=1.8, label="training, smoothed")
    if evaluated:
        axes.plot(*zip(*evaluated, strict=True), color="#c44", marker="o", linewidth=1.5, label="evaluation")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    if train or evaluated:
        axes.legend()
    path = output / PICTURE
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    return path


def _smooth(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """The exponential moving average over about a twentieth of the run, corrected for its start."""
    keep = 1 - 1 / max(1.0, len(points) / 20)
    out, mean, weight = [], 0.0, 0.0
    for step, loss in points:
        mean, weight = keep * mean + (1 - keep) * loss, keep * weight + (1 - keep)
        out.append((step, mean / weight))
    return out
