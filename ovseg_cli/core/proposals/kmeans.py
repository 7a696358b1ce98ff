"""k-means of the tokens of one picture, step by step as PixelCLIP's masks are made."""

import torch
from torch import Tensor


def kmeans(points: Tensor, start: Tensor, iterations: int = 100, tolerance: float = 1e-4) -> tuple[Tensor, Tensor]:
    """Lloyd's iterations with Euclidean distance.

    Args:
        points: (L, D), used as they are.
        start: (k, D), first centroids; equal rows leave clusters empty, since ties go to the first.
        iterations: At most so many.
        tolerance: Stop when the squared shift, summed over all centroids and dimensions, is not larger.

    Returns:
        (L,) int64 cluster of each point, as assigned *before* the last update of the centroids, and the (k, D)
        centroids after it. The centroid of an empty cluster is the zero vector.

    Source: PixelCLIP's code (the k-means package that it calls), whose labels lag one update behind and whose empty
    clusters fall to zero; the paper says only "k-means". We follow the code.
    """
    centroids = start
    labels = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    for _ in range(iterations):
        labels = nearest_centroid(points, centroids)
        updated = _means(points, labels, len(centroids))
        shift = (updated - centroids).square().sum()
        centroids = updated
        if shift <= tolerance:
            break
    return labels, centroids


def nearest_centroid(points: Tensor, centroids: Tensor) -> Tensor:
    """Return the (L,) index of the nearest of (k, D) centroids; of equally near ones the first."""
    return (centroids.square().sum(1) - 2 * points @ centroids.T).argmin(1)


def _means(points: Tensor, labels: Tensor, k: int) -> Tensor:
    """Return the mean of each cluster, zero where it is empty."""
    member = torch.nn.functional.one_hot(labels, k).to(points.dtype)
    return (member.T @ points) / member.sum(0).clamp(min=1)[:, None]


def random_start(points: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Draw k rows uniformly, with replacement, as PixelCLIP's code does: a row may come twice.

    The generator lives on the CPU, so that every device draws the same rows.
    """
    return points[torch.randint(len(points), (k,), generator=generator).to(points.device)]


def spread_start(points: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Draw k rows one after another, each with a chance that grows with its squared distance to those drawn before.

    Source: Arthur and Vassilvitskii, "k-means++", SODA 2007. Where fewer than k different points exist, rows repeat.
    """
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    distance = torch.full((len(points),), torch.inf)
    for _ in range(k - 1):
        distance = torch.minimum(distance, (points - points[chosen[-1]]).square().sum(1).cpu())
        weights = distance if float(distance.sum()) > 0 else torch.ones_like(distance)
        chosen.append(int(torch.multinomial(weights, 1, generator=generator)))
    return points[chosen]


def cohesion(points: Tensor, labels: Tensor) -> Tensor:
    """Return for each cluster the mean cosine between its points and their mean, -1 to 1.

    Args:
        points: (L, D).
        labels: (L,) clusters 0 to n - 1, none of them empty.
    """
    centroids = _means(points, labels, int(labels.max()) + 1)
    cosine = torch.nn.functional.cosine_similarity(points, centroids[labels], dim=1)
    return _means(cosine[:, None], labels, len(centroids))[:, 0]
