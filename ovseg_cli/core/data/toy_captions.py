"""What is said about a scene of the toy world, and with which words?

A caption names the classes that are there, in any order and never where: unseen classes too, since captions are what a
CLIP is trained on. Clutter has no name and is never mentioned.
"""

from collections.abc import Sequence

from numpy.random import Generator

STUFF = ("grass", "water", "sand", "brick", "gravel", "wood", "snow", "leaves", "sky", "tiles", "lava", "straw")
COLORS = ("red", "yellow", "green", "blue", "purple")
PATTERNS = ("plain", "striped", "spotted", "checked")
HEAD_NOUN = "toy"
CLASS_NAMES = (*STUFF, *(f"{color} {pattern} {HEAD_NOUN}" for color in COLORS for pattern in PATTERNS))

_PREFIXES = ("a photo of", "a picture of", "an image with", "there is", "we see", "", "a scene with")
_JOINTS = (" and ", " with ", " next to ", ", ")

WORDS = (
    *("a", "an", "photo", "of", "picture", "image", "with", "there", "is", "we", "see", "scene", "and", "next", "to"),
    *STUFF,
    *COLORS,
    *PATTERNS,
    HEAD_NOUN,
)


def thing_id(color: int, pattern: int) -> int:
    """Return the train id of the thing with this color and pattern."""
    return len(STUFF) + color * len(PATTERNS) + pattern


def thing_factors(train_id: int) -> tuple[int, int]:
    """Return (color, pattern) of a thing's train id."""
    return divmod(train_id - len(STUFF), len(PATTERNS))


def caption(present: Sequence[int], rng: Generator) -> str:
    """Describe the classes that are present.

    Each class is left out with probability 0.15 (never all); a thing loses one of its two adjectives with probability
    0.12 and has an article every other time, so that names are understood with and without one.

    Args:
        present: Train ids, at least one.
        rng: Where the choices come from.
    """
    order = [present[i] for i in rng.permutation(len(present))]
    kept = [train_id for train_id in order if rng.random() >= 0.15] or order[:1]
    text = _PREFIXES[rng.integers(len(_PREFIXES))]
    for place, train_id in enumerate(kept):
        joint = _JOINTS[rng.integers(len(_JOINTS))] if place else (" " if text else "")
        text += joint + _phrase(train_id, rng)
    return text


def _phrase(train_id: int, rng: Generator) -> str:
    if train_id < len(STUFF):
        return STUFF[train_id]
    color, pattern = thing_factors(train_id)
    adjectives = [COLORS[color], PATTERNS[pattern]]
    if rng.random() < 0.12:
        adjectives.pop(rng.integers(2))
    article = ["a"] if rng.random() < 0.5 else []
    return " ".join([*article, *adjectives, HEAD_NOUN])
