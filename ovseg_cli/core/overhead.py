"""What does TagCLIP cost beside ZegCLIP? Trained weights, multiplications and time, for `ovseg show` of either.

The paper calls the overhead negligible. Weights and multiplications are counted from the very modules that predict,
built without values; times are measured when somebody asks, on random weights.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ovseg_cli.core import registry
from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.clip.prompted import PromptedTower
from ovseg_cli.core.clip.tokenizer import WordTokenizer
from ovseg_cli.core.clip.towers import build_module
from ovseg_cli.core.methods.one_stage import OneStageMethod
from ovseg_cli.core.report.cells import Cell, Column, Table
from ovseg_cli.core.types import TextFeatures

PAIR = ("zegclip", "tagclip")
"""The two that are compared; the difference is in percent of the first."""
ARCHITECTURE = "ViT-B-16"
SIDE = 512
LEAST, MOST, BUDGET = 3, 9, 1.0  # timed rounds; seconds after which no round beyond the least begins
MEETING = {
    "zegclip": "a name's scores do not depend on the other names, so long lists go through the decoder in chunks",
    "tagclip": "a name's scores depend on all names that are asked with it, since their queries attend to each other: "
    "a list of classes is never cut into chunks, and another list gives other scores",
}
"""Whether the queries of names meet, for the facts of `ovseg show`."""
PUBLISHED = (
    "Neither built nor computed here: what has no effect in the published code. With it the encoder takes 108.7 and "
    "120.6 G, heads take 1.84 and 3.58 G (ZegCLIP), 1.88 and 3.81 G (TagCLIP), and weights are 13.82 M and 14.65 M "
    "(ZegCLIP, which has three self-attentions that it never calls), 11.72 M and 12.55 M (TagCLIP)."
)


@dataclass(frozen=True)
class Task:
    """How many names are asked of one picture, and how many prompts the encoder has."""

    classes: int
    prompts: int


TASKS = (Task(20, 10), Task(171, 100))
"""The papers' VOC and COCO-Stuff."""


@dataclass(frozen=True)
class Cost:
    """What one method costs for one picture.

    Attributes:
        parameters: Trained weights.
        encoder_macs: Multiplications (with addition) of the matrix products of the prompted image tower.
        head_macs: Those of descriptor and decoder.
        encoder_seconds: Time of the tower.
        head_seconds: Time of descriptor and decoder.
    """

    parameters: int
    encoder_macs: int
    head_macs: int
    encoder_seconds: float
    head_seconds: float


def overhead_table() -> Table:
    """Compare the two on a ViT-B/16 at 512 pixels, for the papers' two tasks; takes a few seconds."""
    clip = empty_clip(ARCHITECTURE)
    columns = (
        Column("task", "one picture"),
        Column("quantity", "what"),
        *(Column(name, registry.METHODS[name].title, "number", 2) for name in PAIR),
        Column("difference", "difference, %", "points", 2),
    )
    rows: list[tuple[Cell, ...]] = []
    rounds: list[int] = []
    for task in TASKS:
        costs, counted = compare(clip, task, SIDE)
        rounds += counted
        rows += cost_rows(f"{task.classes} classes, {task.prompts} prompts", costs)
    grid, blocks = SIDE // clip.patch_size, len(clip.visual.transformer.resblocks)
    notes = (
        f"{ARCHITECTURE}, {SIDE} x {SIDE} pixels, {grid} x {grid} patches, {clip.embed_dim} dimensions; the encoder is "
        "the same for both.",
        "M: millions. G: 10⁹ multiplications with addition, of matrix products and convolutions.",
        f"Times were measured here, now: CPU, threads: {torch.get_num_threads()}, float32, made-up weights, median of "
        f"{_range(rounds)} rounds, heads in turn. The encoder's is {blocks} times that of one of its blocks.",
        PUBLISHED,
    )
    return Table("What TagCLIP costs beside ZegCLIP", columns, tuple(rows), notes)


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def cost_rows(task: str, costs: Sequence[Cost]) -> list[tuple[Cell, ...]]:
    """Make the rows of a task: each quantity of both methods, and the difference in percent."""
    quantities: dict[str, tuple[Callable[[Cost], float], float]] = {
        "trained weights, M": (lambda c: c.parameters, 1e6),
        "encoder, G": (lambda c: c.encoder_macs, 1e9),
        "head, G": (lambda c: c.head_macs, 1e9),
        "both, G": (lambda c: c.encoder_macs + c.head_macs, 1e9),
        "encoder, ms": (lambda c: c.encoder_seconds, 1e-3),
        "head, ms": (lambda c: c.head_seconds, 1e-3),
        "both, ms": (lambda c: c.encoder_seconds + c.head_seconds, 1e-3),
    }
    rows: list[tuple[Cell, ...]] = []
    for name, (of, unit) in quantities.items():
        first, second = (of(cost) / unit for cost in costs)
        rows.append((Cell(task), Cell(name), Cell(first), Cell(second), Cell(100 * (second / first - 1))))
    return rows


def empty_clip(architecture: str) -> ClipModel:
    """Build a CLIP of open_clip's without values."""
    import open_clip

    config = open_clip.get_model_config(architecture)
    with torch.device("meta"):
        return ClipModel(build_module(config), architecture, config, WordTokenizer(("a",), 4))


def compare(clip: ClipModel, task: Task, side: int) -> tuple[list[Cost], list[int]]:
    """Count and time both methods; return their costs, and how many rounds were timed of encoder and heads."""
    with torch.device("meta"):
        classes = [registry.METHODS[name].load() for name in PAIR]
        methods = [made(clip, made.Config(prompts=task.prompts)).requires_grad_(False) for made in classes]
    weights, prompted = [trained_weights(method) for method in methods], methods[0].prompted
    encoder = count_macs(lambda: prompted(clip.visual, torch.empty(1, 3, side, side, device="meta")))
    heads = [count_macs(head_call(method, task, side, "meta")) for method in methods]
    (block,), of_block = seconds([block_call(clip, prompted, 1 + (side // clip.patch_size) ** 2)])
    times, of_heads = seconds([head_call(filled(method), task, side, "cpu") for method in methods])
    blocks = len(clip.visual.transformer.resblocks)
    measured = zip(weights, heads, times, strict=True)
    return [Cost(own, encoder, macs, blocks * block, spent) for own, macs, spent in measured], [of_block, of_heads]


def trained_weights(method: OneStageMethod) -> int:
    """Count all weights but those of the CLIP."""
    return sum(p.numel() for name, p in method.named_parameters() if not name.startswith("clip."))


def count_macs(call: Callable[[], object]) -> int:
    """Count the multiplications of the matrix products and convolutions of a call."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops()) // 2


class _Encoded(nn.Module):
    """Stands in for the prompted tower: features that are there already, so that a call is the head's alone."""

    def __init__(self, patches: Tensor, picture: Tensor):
        super().__init__()
        self.features = (patches, picture)

    def forward(self, visual: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.features


def head_call(method: OneStageMethod, task: Task, side: int, device: str) -> Callable[[], object]:
    """Return a call of descriptor and decoder, as `predict` makes it, on features of unit length."""
    grid, dim = side // method.clip.patch_size, method.clip.embed_dim
    shapes = ((1, grid, grid, dim), (1, dim), (task.classes, dim))
    patches, picture, rows = (torch.full(shape, dim**-0.5, device=device) for shape in shapes)
    method.prompted = _Encoded(patches, picture)  # type: ignore[assignment]
    images, text = torch.empty(1, 3, side, side, device=device), TextFeatures.of_classes(rows)
    return lambda: method.mask_logits(images, text)


def block_call(clip: ClipModel, prompted: PromptedTower, tokens: int) -> Callable[[], object]:
    """Return a call of one block of the image tower, as it runs with prompts, on this many other tokens."""
    block = deepcopy(clip.visual.transformer.resblocks[0])
    for module in (block, prompted):
        _fill(module)
    tower = SimpleNamespace(transformer=SimpleNamespace(resblocks=[block]))
    rows = torch.full((1, tokens, int(clip.visual.conv1.out_channels)), 0.1)
    return lambda: prompted.run(tower, rows)


def filled(method: OneStageMethod) -> OneStageMethod:
    """Give the head of a method values; its CLIP stays without."""
    for name, module in method.named_children():
        if name != "clip":
            _fill(module)
    if (token := getattr(method, "trust_token", None)) is not None:
        method.trust_token = nn.Parameter(torch.full(token.shape, 0.01), requires_grad=False)
    return method


def _fill(module: nn.Module) -> None:
    for parameter in module.to_empty(device="cpu").parameters():
        parameter.data.fill_(0.01)  # times do not depend on values, so long as they are no tiny ones


@torch.no_grad()
def seconds(calls: Sequence[Callable[[], object]]) -> tuple[list[float], int]:
    """Time calls that take turns, after a round that does not count; return their medians and the number of rounds."""
    spent: list[list[float]] = [[] for _ in calls]
    begun = time.perf_counter()
    for number in range(MOST + 1):
        if number > LEAST and time.perf_counter() - begun > BUDGET:
            break
        for times, call in zip(spent, calls, strict=True):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
    return [statistics.median(times[1:]) for times in spent], len(spent[0]) - 1
