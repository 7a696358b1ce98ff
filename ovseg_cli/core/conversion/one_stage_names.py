"""How the codes of ZegCLIP and TagCLIP name what our runs keep, and which of their tensors have no effect.

Their decoders inherit more than they call: a self-attention with its norm in layers that have none, and in the last
layer, whose mask logits alone are read, everything behind its queries and keys. No gradient ever reached these.
"""

from collections.abc import Collection, Iterable

BACKBONE, TEXT, HEAD = "backbone.", "text_encoder.", "decode_head."
PROMPTS = (f"{BACKBONE}prompt_", f"{BACKBONE}deep_prompt_")
PROMPT_NORM = f"{BACKBONE}prompt_norm."
LOSS = f"{HEAD}loss_decode."
EMPTY_WEIGHT = f"{LOSS}criterion.empty_weight"
TOKEN = f"{HEAD}disc_token"

DECODER = {"zegclip": f"{HEAD}decoder_1.", "tagclip": f"{HEAD}decoder."}
DESCRIPTOR = {"zegclip": f"{HEAD}q_proj.", "tagclip": f"{HEAD}relationship_discriptor."}
"""By method; the spelling is the code's own."""


def official_name(own: str, method: str) -> str:
    """Return the name that a method's code gives to a weight of our run."""
    descriptor = "descriptor.q_proj." if method == "zegclip" else "descriptor."
    places = {
        "prompted.": BACKBONE,
        descriptor: DESCRIPTOR[method],
        "decoder.": DECODER[method],
        "trust_token": TOKEN,
    }
    place = next(place for place in places if own.startswith(place))
    return places[place] + own.removeprefix(place)


def dead_weights(names: Iterable[str], decoder: str, layers: int, self_attention: bool) -> list[str]:
    """Return the decoder's tensors that have no effect.

    Args:
        names: All names of the file.
        decoder: What the decoder's names begin with.
        layers: How many layers it has.
        self_attention: Its layer 0 attends among the queries.
    """
    return [name for name in names if name.startswith(decoder) and _is_dead(name, decoder, layers, self_attention)]


def _is_dead(name: str, decoder: str, layers: int, self_attention: bool) -> bool:
    number, _, part = name.removeprefix(f"{decoder}layers.").partition(".")
    if not number.isdigit():
        return False
    if part.startswith(("self_attn.", "norm1.")):
        return not (self_attention and int(number) == 0)
    behind = ("multihead_attn.v.", "multihead_attn.proj.", "linear1.", "linear2.", "norm2.", "norm3.")
    return int(number) == layers - 1 and part.startswith(behind)


def learner_of(names: Collection[str]) -> str:
    """Return which of TagCLIP's Trusty Learners wrote such names."""
    place = DESCRIPTOR["tagclip"]
    if any(name.startswith(f"{place}input_proj.") for name in names):
        return "figure-5-left"
    return "figure-5-right" if any(name.startswith(f"{place}attention.") for name in names) else "released"
