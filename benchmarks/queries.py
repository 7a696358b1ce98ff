"""How much of ZegCLIP's and TagCLIP's queries tells one class from another? Asked of finished runs.

    python -m benchmarks.queries runs/tagclip-toy-novel-TIME/seed-0 [RUN …] [--data toy:novel] [--pictures 8]

The share: variance over classes by mean square, (B, C, d) queries as they enter the decoder; 0 where all classes ask
the same. With the weights of the run, and with fresh ones (Xavier-uniform), as training begins.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.finished import open_finished
from benchmarks.measure import print_table
from ovseg_cli.core.nn.descriptors import AttentionConcatLearner, Descriptor, SelfAttentionLearner
from ovseg_cli.core.runtime import Folders, folders

HEADERS = ["run", "learner", "fresh", "trained"]
LEARNERS = (AttentionConcatLearner, Descriptor, SelfAttentionLearner)


def share(queries: Tensor) -> float:
    """Return which share of the power of (B, C, d) queries differs between classes."""
    return float(queries.var(1).mean() / queries.square().mean())


@torch.no_grad()
def measure(run: str, data: str, count: int, places: Folders) -> tuple[str, ...]:
    """Return a row of the table."""
    opened = open_finished(run, data, "val", places)
    (learner,) = (part for part in opened.method.modules() if isinstance(part, LEARNERS))
    seen: list[tuple[Tensor, ...]] = []
    hook = learner.register_forward_pre_hook(lambda _, given: seen.append(given))
    for index in range(min(count, len(opened.pictures))):
        opened.method.predict([torch.tensor(opened.pictures.image(index)).permute(2, 0, 1)], opened.text)
    hook.remove()
    trained = share(torch.cat([learner(*given) for given in seen]))
    torch.manual_seed(0)
    for weight in (p for p in learner.parameters() if p.ndim > 1):
        nn.init.xavier_uniform_(weight)
    fresh = share(torch.cat([learner(*given) for given in seen]))
    return run, type(learner).__name__, f"{fresh:.3f}", f"{trained:.3f}"


def main() -> None:
    """Print a row a run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", nargs="+", type=str)
    parser.add_argument("--data", default="toy:novel")
    parser.add_argument("--pictures", type=int, default=8)
    asked = parser.parse_args()
    places = folders(None, Path("runs"))
    title = f"{asked.data}, {asked.pictures} pictures; share of the queries' power that tells classes apart"
    print_table(title, HEADERS, [measure(run, asked.data, asked.pictures, places) for run in asked.runs])


if __name__ == "__main__":
    main()
