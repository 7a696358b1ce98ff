"""What do the shipped class lists know of words? Which mean one thing, which mean two, and how they are spelled.

WordNet is no dependency. The data sets' own lists hold what matters here: ADE20K writes `rug, carpet, carpeting` for
one class, `bag` begins three of its classes, and where one list has `tvmonitor` another has `tv monitor`. A few
everyday synonyms and homonyms that no list tells stand below.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from ovseg_cli.core.vocabulary.words import compact, normal

COMMON = 2
"""Of a list of synonyms the first two are used; behind them stand words like `throne`, for a toilet."""
OURS = "everyday English"
SYNONYMS = (
    "airplane, aeroplane, plane, aircraft",
    "automobile, car",
    "bicycle, bike",
    "cell phone, cellphone, mobile phone, cellular telephone, cellular phone",
    "couch, sofa",
    "curb, kerb",
    "donut, doughnut",
    "elevator, lift",
    "eyeglasses, glasses, spectacles",
    "hair drier, hair dryer",
    "handbag, purse",
    "motorcycle, motorbike",
    "photo, photograph",
    "pier, wharf, dock",
    "racket, racquet",
    "refrigerator, fridge",
    "road, street",
    "sidewalk, pavement",
    "sneaker, gym shoe, tennis shoe",
    "stairs, steps, stairway, staircase",
    "stove, kitchen stove, kitchen range",
    "television, tv, television set, tv set, television receiver, tv monitor",
    "tire, tyre",
    "trash can, trash bin, garbage can, garbage bin, rubbish bin, dustbin, wastebin, waste bin, ashcan",
    "truck, lorry",
)
HOMONYMS = {
    "bat": "baseball bat, bat animal",
    "blind": "window blind, blind person",
    "board": "wooden board, notice board",
    "bow": "ribbon bow, bow and arrow",
    "can": "tin can, watering can",
    "case": "display case, suitcase",
    "cell": "cell phone, prison cell",
    "chest": "chest of drawers, human chest",
    "club": "golf club, night club",
    "crane": "construction crane, crane bird",
    "cross": "christian cross, cross mark",
    "drill": "power drill, military drill",
    "drop": "water drop, drop of a cliff",
    "fan": "electric fan, sports fan",
    "file": "paper file, metal file",
    "fly": "fly insect, tent fly",
    "glass": "drinking glass, window glass",
    "hood": "range hood, car hood",
    "iron": "clothes iron, iron metal",
    "jack": "car jack, audio jack",
    "jaguar": "jaguar animal, jaguar car",
    "mouse": "computer mouse, mouse animal",
    "nail": "iron nail, finger nail",
    "orange": "orange fruit, orange color",
    "organ": "pipe organ, body organ",
    "palm": "palm tree, palm of a hand",
    "pipe": "water pipe, tobacco pipe",
    "pitch": "sports pitch, pitch of a roof",
    "pitcher": "water pitcher, baseball pitcher",
    "plug": "electric plug, bath plug",
    "ring": "finger ring, boxing ring",
    "scale": "weighing scale, fish scale",
    "screen": "computer screen, folding screen",
    "seal": "seal animal, wax seal",
    "spring": "metal spring, water spring",
    "straw": "drinking straw, dry straw",
    "swallow": "swallow bird",
    "switch": "light switch, network switch",
    "tank": "water tank, army tank",
    "tap": "water tap, tap dance",
    "tie": "necktie, railroad tie",
    "trunk": "tree trunk, elephant trunk",
    "turkey": "turkey bird, turkey country",
    "well": "water well",
}
"""Words with several meanings, and names that say which is meant."""


@dataclass(frozen=True)
class Thesaurus:
    """What is known of words, by their normal form.

    Attributes:
        meanings: For each word the numbers of the meanings that it has, by source.
        spaced: For each name without its spaces the way to write it with spaces, where somebody does.
        solid: Names without spaces that are English as they are.
    """

    meanings: dict[str, dict[str, tuple[int, ...]]]
    spaced: dict[str, str]
    solid: frozenset[str]

    def keys(self, word: str) -> list[tuple[str, int]]:
        """Return the meanings of a word, (source, number): words with an equal one are synonyms.

        A word that a source uses for several things has none of that source.
        """
        found = self.meanings.get(self.apart(word) or normal(word), {})
        return [(source, numbers[0]) for source, numbers in found.items() if len(numbers) == 1]

    def apart(self, name: str) -> str | None:
        """Return how others write a name that was run together, as `pottedplant`, or None."""
        key = normal(name)
        return None if " " in key or key in self.solid else self.spaced.get(key)


def make_thesaurus(meanings: Iterable[tuple[str, Iterable[str]]], names: Iterable[str] = ()) -> Thesaurus:
    """Build a thesaurus.

    Args:
        meanings: Source, and words that it takes for one thing, the most common first.
        names: Further names whose spelling counts.
    """
    by_word: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    words: list[str] = []
    for number, (source, group) in enumerate(meanings):
        group = [normal(word) for word in group]
        words += group
        for word in dict.fromkeys(group if source == OURS else group[:COMMON]):
            by_word[word][source].append(number)
    spaced = {compact(name): normal(name) for name in (*names, *words) if " " in normal(name)}
    found = {word: {s: tuple(n) for s, n in sources.items()} for word, sources in by_word.items()}
    return Thesaurus(found, spaced, frozenset(word for word in words if " " not in word))


@cache
def shipped() -> Thesaurus:
    """Build the thesaurus of the shipped specs; read once. Lists without commas give spellings only."""
    from ovseg_cli.core.data.specs import load_spec, spec_names

    meanings: list[tuple[str, list[str]]] = [(OURS, line.split(", ")) for line in SYNONYMS]
    names: list[str] = []
    for data in spec_names():
        spec = load_spec(data)
        groups = [name.split(", ") for name in spec.class_names]
        if any(len(group) > 1 for group in groups):
            meanings += [(data, group) for group in groups]
        names += [text for v in spec.name_variants for row in spec.texts(v.id) if len(row) == 1 for text in row]
        names += [word for group in groups for word in group]
    return make_thesaurus(meanings, names)
