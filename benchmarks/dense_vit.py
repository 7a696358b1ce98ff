"""Dense ViT-B/16 features: the core's path beside the same model called naively, CPU seconds and ratios of one run.

python benchmarks/dense_vit.py [--sides 320 512] [--repeats 5] [--images 4]

Naive is what a first script does: every block through `nn.MultiheadAttention` with its weights asked for (so that the
attention maps are written out), the last block's values taken by a hook beside the whole block, one picture a call.
Both give the value path of MaskCLIP as PixelCLIP writes it, from the same random weights; the difference is printed.
"""

import argparse
import statistics
import sys
import time

import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_cli.core.clip.model import ClipModel, load_clip
from ovseg_cli.core.clip.vit import resize_positions


def naive(clip: ClipModel, image: Tensor) -> Tensor:
    """Dense features of one picture (1, 3, H, W): every block in full, attention maps written out."""
    visual = clip.visual
    patches = visual.conv1(image)
    grid = tuple(patches.shape[2:])
    tokens = patches.flatten(2).transpose(1, 2)
    tokens = torch.cat([visual.class_embedding.expand(1, 1, -1), tokens], dim=1)
    tokens = tokens + resize_positions(visual.positional_embedding, tuple(visual.grid_size), grid, "explicit")
    tokens = visual.ln_pre(tokens)
    for block in visual.transformer.resblocks:
        before = tokens
        y = block.ln_1(tokens)
        mixed, _ = block.attn(y, y, y, need_weights=True)
        tokens = before + mixed
        tokens = tokens + block.mlp(block.ln_2(tokens))
    attn = visual.transformer.resblocks[-1].attn
    value = F.linear(y, attn.in_proj_weight, attn.in_proj_bias).chunk(3, dim=-1)[2]
    out = attn.out_proj(value) + before[:, :1]
    out = out + block.mlp(block.ln_2(out))
    return (visual.ln_post(out) @ visual.proj)[:, 1:].unflatten(1, grid)


def main() -> None:
    """Alternate the two, so that a busy moment hits both alike."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[320, 512])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--clip", default="ViT-B-16")
    options = parser.parse_args()
    torch.manual_seed(0)
    clip = load_clip(options.clip, "random")
    print(f"{options.clip}, random weights, {options.images} pictures, {torch.get_num_threads()} threads, float32")
    print(f"{'side':>5} {'naive CPU s':>16} {'ovseg CPU s':>16} {'ratio':>6} {'largest difference':>19}")
    with torch.inference_mode():
        for side in options.sides:
            images = torch.randn(options.images, 3, side, side)
            slow, fast = [], []
            for turn in range(options.repeats + 1):
                start = time.process_time()
                expected = torch.cat([naive(clip, image[None]) for image in images])
                middle = time.process_time()
                got = clip.dense(images, "value-cls")
                end = time.process_time()
                if turn:
                    slow.append((middle - start) / options.images)
                    fast.append((end - middle) / options.images)
                print(f"\rside {side}: turn {turn}/{options.repeats}", end="", file=sys.stderr, flush=True)
            print(file=sys.stderr)
            a, b = statistics.median(slow), statistics.median(fast)
            gap = float((got - expected).abs().max() / expected.abs().max())
            print(f"{side:5d} {a:16.3f} {b:16.3f} {a / b:6.2f} {gap:18.1e}")


if __name__ == "__main__":
    main()
