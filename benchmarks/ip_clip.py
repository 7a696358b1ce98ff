"""100 masks of one picture through CLIP: in one pass, as one sequence, as 100 crops; and CLIP without any mask.

python -m benchmarks.ip_clip [--clip ViT-B-16] [--side 480] [--masks 100] [--repeats 5] [--no-crops]

"two streams" is core/clip/masked.py; "one sequence" is the paper's form (tests/core/clip/one_sequence.py), whose
attention mask spans masks and patches; both give the same features, and the largest difference is printed. "no mask" is
the whole CLIP on the same picture. "crops" cuts each mask out and runs CLIP at its own size, 10 at a time. Times are
processor seconds of one thread, memory is above the level before the call.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import peak_mebibytes, print_table, seconds
from ovseg_cli.core.clip.dense import pooled_features
from ovseg_cli.core.clip.masked import masked_features
from ovseg_cli.core.clip.model import ClipModel, load_clip
from ovseg_cli.core.nn.region_crops import masked_crops
from tests.core.clip.one_sequence import one_sequence

CROPS_AT_ONCE = 10


def ways(clip: ClipModel, side: int, count: int) -> dict[str, Callable[[], Tensor]]:
    """What is compared, on one random picture and random blobs that cover a third of it on average."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, side, side, generator=generator)
    coarse = torch.randn(1, count, 4, 4, generator=generator) - 0.4
    masks = F.interpolate(coarse, (side // 4, side // 4), mode="bicubic").mul(8).sigmoid()
    start = len(clip.visual.transformer.resblocks) * 2 // 3

    def crops() -> Tensor:
        full = F.interpolate(masks, (side, side), mode="bilinear")[0]
        pictures, _ = masked_crops(image[0], full, clip.image_size)
        return torch.cat([clip.visual(part) for part in pictures.split(CROPS_AT_ONCE)])

    return {
        "no mask": lambda: pooled_features(clip.visual, image, "align-corners"),
        "two streams": lambda: masked_features(clip.visual, image, masks, start)[0],
        "one sequence": lambda: one_sequence(clip.visual, image, masks, start)[0, :count],
        "crops": crops,
    }


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", default="ViT-B-16")
    parser.add_argument("--side", type=int, default=480)
    parser.add_argument("--masks", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--no-crops", dest="crops", action="store_false", help="leave the crops out, which take longest"
    )
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    clip = load_clip(options.clip, "random")
    calls = ways(clip, options.side, options.masks)
    if options.memory:
        ways(clip, 64, 2)[options.memory]()  # buffers of the libraries are not the call's
        print(json.dumps(peak_mebibytes(calls[options.memory])))
        return
    if not options.crops:
        del calls["crops"]
    gap = (calls["two streams"]() - calls["one sequence"]()).abs().max() / calls["one sequence"]().abs().max()
    spent = seconds({k: v for k, v in calls.items() if k != "crops"}, options.repeats, time.process_time)
    if options.crops:
        spent |= seconds({"crops": calls["crops"]}, 1, time.process_time)
    rows = [line(name, spent, options) for name in calls]
    title = f"{options.clip}, {options.side} px, {options.masks} masks, 1 thread; largest difference {gap:.1e}"
    print_table(title, ["form", "processor s", "to no mask", "peak MiB"], rows)


def line(name: str, spent: dict[str, float], options: argparse.Namespace) -> list[str]:
    command = [sys.executable, "-m", "benchmarks.ip_clip", "--memory", name, "--clip", options.clip]
    command += ["--side", str(options.side), "--masks", str(options.masks)]
    peak = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return [name, f"{spent[name]:.2f}", f"{spent[name] / spent['no mask']:.2f}", f"{peak:.0f}"]


if __name__ == "__main__":
    main()
