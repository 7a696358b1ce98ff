"""Classes without names: each is a few learned words in a sentence, read by CLIP's frozen text tower.

Source: PixelCLIP, code: k classes of l word vectors, which start as words drawn at random from the vocabulary, in "A
photo of a {} {} {} {} in the scene". With several sentences a class's feature is the plain mean of the features of all,
not normalised before. There the published code puts the vectors of the one sentence above at the places and under the
ends of every other sentence, so that words are missing or stand twice; here each sentence keeps its own words.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.clip.prompts import SINGLE, resolve_templates
from ovseg_cli.core.clip.tokenizer import NoTokenizer
from ovseg_cli.core.errors import UsageError

NO_WORDS = 10
"""Ids at the end of the vocabulary that no first word is drawn from, as in the code; start and end are among them."""


@dataclass(frozen=True)
class Sentence:
    """The ids around the learned words.

    Attributes:
        before: Ids from the start of the text to the learned words.
        after: Ids from there to the end of the text, which is the last.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]

    def ids(self, length: int) -> tuple[int, ...]:
        """Return all ids, 0 at the places of the learned words."""
        return (*self.before, *[0] * length, *self.after)


class ClassPrompts(nn.Module):
    """Learned classes.

    The CLIP stays outside: it is frozen, and the words of the sentences are looked up in it, so that nothing but the
    learned words is a weight of this module.

    Args:
        clip: The CLIP whose text tower reads; only its vocabulary and its tokenizer are used here.
        count: k, number of classes.
        length: l, words of a class.
        templates: Sentences with `{}` where the words stand, or names of sets of them.
        seed: Of the first words.

    Attributes:
        prompt_tokens: (k, l, width), the learned words.
        sentences: One for each template; none where the CLIP has no tokenizer: such words are kept, not read.

    Raises:
        UsageError: A sentence does not fit the context, or the text tower takes no vectors.
    """

    def __init__(
        self, clip: ClipModel, count: int = 64, length: int = 4, templates: Sequence[str] = SINGLE, seed: int = 0
    ):
        super().__init__()
        words = first_words(clip.word_table.num_embeddings, count, length, seed)
        self.prompt_tokens = nn.Parameter(clip.word_table(words.to(clip.device)).detach().clone())
        known = () if isinstance(clip.tokenizer, NoTokenizer) else resolve_templates(templates)
        self.sentences = tuple(_sentence(clip, template, length) for template in known)
        for number, sentence in enumerate(self.sentences):
            self.register_buffer(f"ids_{number}", torch.tensor(sentence.ids(length)).to(clip.device), persistent=False)

    def forward(self, clip: ClipModel) -> Tensor:
        """Return (k, D) float32 features of the classes, not normalised; the mean over sentences.

        Raises:
            UsageError: The CLIP has no tokenizer, so that the sentences are not known.
        """
        if not self.sentences:
            clip.tokenize([])
        features = [self._read(clip, number) for number in range(len(self.sentences))]
        return torch.stack(features).mean(dim=0)

    def _read(self, clip: ClipModel, number: int) -> Tensor:
        """Return the features of one sentence."""
        ids = self.get_buffer(f"ids_{number}")
        count, length, _ = self.prompt_tokens.shape
        start = len(self.sentences[number].before)
        words = clip.word_table(ids).detach().expand(count, -1, -1)
        embedded = torch.cat([words[:, :start], self.prompt_tokens, words[:, start + length :]], dim=1)
        ends = torch.full((count,), len(ids) - 1, device=ids.device)
        return clip.encode_embedded(embedded, ends).float()


def first_words(vocabulary: int, count: int, length: int, seed: int) -> Tensor:
    """Draw the ids that learned words start from, (count, length) int64: the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocabulary - NO_WORDS, (count, length), generator=generator)


def _sentence(clip: ClipModel, template: str, length: int) -> Sentence:
    """Read what stands before and after the words as two texts: no stand-in has to be found again among the ids."""
    before, after = clip.tokenize(template.split("{}"))
    sentence = Sentence(tuple(before[: before.argmax()].tolist()), tuple(after[1 : after.argmax() + 1].tolist()))
    room = clip.tokenizer.context_length - len(sentence.ids(0))
    if length > room:
        raise UsageError(
            f"prompt_length={length}: '{template}' leaves room for {max(room, 0)} words among the "
            f"{clip.tokenizer.context_length} tokens that {clip.name} reads.",
            f"Use --set prompt_length={room}." if room > 0 else "Choose a shorter sentence.",
        )
    return sentence
