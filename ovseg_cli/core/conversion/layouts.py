"""Which published code wrote a checkpoint? The names of its tensors tell."""

from collections.abc import Collection

from ovseg_cli.core.errors import UsageError

METHODS = ("maft", "freeseg", "zegformer", "zsseg", "zegclip", "tagclip", "pixelclip")

_PREDICTOR = "sem_seg_head.predictor."
_MARKS = {
    "maft": ("IPCLIP.",),
    "pixelclip": (f"{_PREDICTOR}prompt_tokens", "teacher_encoder.", "head.conv0."),
    "zegformer": (f"{_PREDICTOR}projection_layer.", f"{_PREDICTOR}bg_feature"),
    "freeseg": ("sem_seg_head.interaction.", f"{_PREDICTOR}transformer_cross_attention_layers."),
    "zsseg": (f"{_PREDICTOR}transformer.decoder.",),
    "zegclip": ("decode_head.decoder_1.",),
    "tagclip": ("decode_head.relationship_discriptor.", "decode_head.decoder.", "decode_head.disc_token"),
}
"""By method, in the order of asking: prefixes of which one is enough."""


def layout_of(names: Collection[str]) -> str | None:
    """Return the method whose code writes such names, or None."""
    for method, marks in _MARKS.items():
        if any(name.startswith(marks) for name in names):
            return method if method != "zsseg" or any(n.startswith("clip_adapter.") for n in names) else None
    return None


def check_layout(names: Collection[str], method: str, where: str) -> None:
    """Make sure that a checkpoint is one of the method; one of MAFT holds a whole FreeSeg too.

    Raises:
        UsageError: It is of another method, or of none that is known.
    """
    found = layout_of(names)
    if found == method or (found, method) == ("maft", "freeseg"):
        return
    if found is not None:
        raise UsageError(f"{where}: this looks like a checkpoint of {found}.", f"Use --method {found}.")
    heads = sorted({name.partition(".")[0] for name in names})
    shown = ", ".join(heads[:6]) + (", …" if len(heads) > 6 else "")
    raise UsageError(
        f"{where}: this is no checkpoint of {', '.join(METHODS[:-1])} or {METHODS[-1]}; its names begin with {shown}.",
        f"Pass the file of the whole {method} model.",
    )
