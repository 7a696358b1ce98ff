"""Which sentences surround a class name: the template sets of the papers, by name.

A template holds `{}` once. Only sets whose every sentence is certain are here.
"""

from collections.abc import Sequence

from ovseg_cli.core.errors import UsageError, nearest

PHOTO = ("a photo of a {}.",)
"""CLIP (Radford et al., 2021), section 3.1.4: the default where nothing else is chosen."""

SINGLE = ("A photo of a {} in the scene",)
"""CAT-Seg, PixelCLIP and ZegFormer, code: `single`, no full stop; PixelCLIP trains with it."""

IMAGENET_SELECT = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
    "A photo of a {} in the scene",
)
"""PixelCLIP and ZegFormer, code: `imagenet_select`. CLIP's seven best for ImageNet and `single`."""

_SIZES = ("small", "medium", "large")
_WITH_SIZES = ("", "small ", "medium ", "large ")
_STARTS = ("There is a", "There is the", "This is a", "This is the", "This is one")

VILD = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    *(f"a photo of a {size} {{}}." for size in _SIZES),
    *(f"This is a photo of a {size} {{}}." for size in _SIZES),
    *(f"There is a {size} {{}} in the scene." for size in _SIZES),
)
"""ZSSeg, FreeSeg and MAFT, code: `vild`, 14 sentences. ViLD itself (Gu et al., 2022) has more of them."""

SCULPTURE = ("a sculpture of a {}.",)
"""ZSSeg, code: the sentence of its "single prompt" configurations."""

ZEGFORMER_REGIONS = (
    "a bad photo of the {}.",
    "a photo of the large {}.",
    "a photo of the small {}.",
    "a cropped photo of a {}.",
    *(f"This is a {kind}photo of a {size}{{}}" for kind in ("", "masked ", "cropped ") for size in _WITH_SIZES),
    "A photo of a {} in the scene",
    "a bad photo of the {} in the scene",
    "a photo of the large {} in the scene",
    "a photo of the small {} in the scene",
    "a cropped photo of a {} in the scene",
    "a photo of a masked {} in the scene",
    *(f"{start} {kind}{{}} in the scene" for kind in ("", "masked ") for start in _STARTS),
)
"""ZegFormer, code (`IMAGENET_TEMPLATES_SELECT_CLIP`, the same in CAT-Seg): 32 sentences for regions that CLIP reads."""

ZEGCLIP = (
    *(f"{start} {size}{{}}." for start in ("a photo of a", "This is a photo of a") for size in _WITH_SIZES),
    *(f"{start} {{}} in the scene." for start in ("a", "a photo of a", *_STARTS)),
)
"""Of ZegCLIP's code on COCO-Stuff and Context; on VOC it is "a photo of a {}" alone."""

_SETS = {
    "zegclip": ZEGCLIP,
    "photo": PHOTO,
    "single": SINGLE,
    "imagenet-select": IMAGENET_SELECT,
    "vild": VILD,
    "sculpture": SCULPTURE,
    "zegformer-regions": ZEGFORMER_REGIONS,
}
NAMES = (*_SETS, "imagenet")


def template_set(name: str) -> tuple[str, ...]:
    """Return a set by name.

    Args:
        name: "photo", "single", "sculpture", "imagenet-select" (8 sentences), "vild" (14), "zegformer-regions" (32),
            "zegclip" (15), or "imagenet": the 80 of CLIP's notebook, as open_clip ships them.

    Raises:
        UsageError: There is no such set.
    """
    if name == "imagenet":
        from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

        return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
    if name not in _SETS:
        hit = nearest(name, NAMES)
        hint = f"Did you mean '{hit}'?" if hit else f"Known sets: {', '.join(NAMES)}."
        raise UsageError(f"templates: '{name}' is neither a sentence with {{}} nor a set.", hint)
    return _SETS[name]


def resolve_templates(entries: Sequence[str]) -> tuple[str, ...]:
    """Turn a mixed list of sentences and names of sets into sentences, each kept once, in order.

    Raises:
        UsageError: An entry is no set and does not hold `{}` exactly once; or there are no entries.
    """
    sentences: list[str] = []
    for entry in entries:
        if "{" not in entry and "}" not in entry:
            sentences += template_set(entry)
        elif entry.count("{}") == 1 and entry.count("{") == entry.count("}") == 1:
            sentences.append(entry)
        else:
            raise UsageError(f"templates: '{entry}' must hold {{}} exactly once, and no other braces.")
    if not sentences:
        raise UsageError("templates: there is none.", f"Give a sentence with {{}}, or a set: {', '.join(NAMES)}.")
    return tuple(dict.fromkeys(sentences))
