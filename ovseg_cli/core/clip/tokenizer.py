"""How text becomes token ids: CLIP's own byte-pair tokenizers, and a word-level one for small vocabularies.

All answer the same three questions: the ids of some texts, which words they do not know, and which texts were cut.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ovseg_cli.core.clip.hub import hub_as_it_is
from ovseg_cli.core.errors import MachineError, UsageError

_WORD = re.compile(r"[^\W_]+|[^\w\s]")
_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^`{|}~")


class Tokenizer(Protocol):
    """What text.py needs of a tokenizer."""

    context_length: int

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return (n, context_length) int64 ids, zeros after the end of a text."""

    def unknown(self, texts: Sequence[str]) -> list[str]:
        """Return the words without a trained embedding, sorted."""

    def too_long(self, texts: Sequence[str]) -> list[str]:
        """Return the texts that do not fit the context and are cut."""

    def to_json(self) -> dict[str, Any]:
        """Return what `tokenizer_from_json` needs."""


class WordTokenizer:
    """Word-level tokenizer: lower case, words separated by spaces and punctuation.

    Ids: 0 is padding, then the known words, then `reserve` places with untrained embeddings for words that are not
    known, then start and end of text. The end of text has the highest id, so that pooling at the largest id works.
    A place for an unknown word is found by a stable hash; if another word has it already, the next free one is
    taken, so that distinct words never share an id in one tokenizer.

    Args:
        words: Known words; their order is the order of ids.
        context_length: L, ids in a text including start and end.
        reserve: Number of places for unknown words.
    """

    def __init__(self, words: Sequence[str], context_length: int, reserve: int = 1024):
        self.words = tuple(words)
        self.context_length = context_length
        self.reserve = reserve
        self._known = {word: 1 + i for i, word in enumerate(self.words)}
        if len(self._known) != len(self.words):
            raise UsageError("the words of a tokenizer must differ from each other.")
        self._taken: dict[str, int] = {}  # unknown word -> place, 0 to reserve - 1
        self.sot = 1 + len(self.words) + reserve
        self.eot = self.sot + 1

    @property
    def vocab_size(self) -> int:
        """Number of ids, padding included."""
        return self.eot + 1

    def split(self, text: str) -> list[str]:
        """Return the words of a text; punctuation separates and is dropped, other signs count as words."""
        return [w for w in _WORD.findall(unicodedata.normalize("NFKC", text).casefold()) if w not in _PUNCTUATION]

    def unknown(self, texts: Sequence[str]) -> list[str]:
        """Return the words that get a place with an untrained embedding, sorted."""
        return sorted({word for text in texts for word in self.split(text)} - self._known.keys())

    def too_long(self, texts: Sequence[str]) -> list[str]:
        """Return the texts that do not fit the context and are cut."""
        return [text for text in texts if len(self.split(text)) + 2 > self.context_length]

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return (n, context_length) int64 ids.

        Raises:
            UsageError: More unknown words than places for them.
        """
        for word in self.unknown(texts):  # sorted, so that the order of the texts does not matter
            self._place(word)
        ids = torch.zeros(len(texts), self.context_length, dtype=torch.int64)
        for row, text in zip(ids, texts, strict=True):
            body = [self._id(word) for word in self.split(text)][: self.context_length - 2]
            row[: len(body) + 2] = torch.tensor([self.sot, *body, self.eot])
        return ids

    def _id(self, word: str) -> int:
        return self._known[word] if word in self._known else 1 + len(self.words) + self._taken[word]

    def _place(self, word: str) -> None:
        if word in self._taken:
            return
        if len(self._taken) >= self.reserve:
            raise UsageError(
                f"'{word}': the tokenizer has places for {self.reserve} unknown words and all are taken.",
                "Use fewer words, or a CLIP with a full tokenizer such as --clip ViT-B-16 --pretrained openai.",
            )
        place = int.from_bytes(hashlib.sha256(word.encode("utf-8")).digest()[:8], "little") % self.reserve
        used = set(self._taken.values())
        while place in used:
            place = (place + 1) % self.reserve
        self._taken[word] = place

    def to_json(self) -> dict[str, Any]:
        """Return a JSON document that `from_json` reads."""
        return {
            "kind": "words",
            "words": list(self.words),
            "context_length": self.context_length,
            "reserve": self.reserve,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "WordTokenizer":
        """Build the tokenizer that `to_json` described."""
        return cls(document["words"], document["context_length"], document["reserve"])


class OpenClipTokenizer:
    """The tokenizer that open_clip pairs with an architecture: CLIP's byte pairs, or one from a hub.

    Args:
        config: open_clip's model configuration; its `text_cfg` names the tokenizer and the context length.
        architecture: open_clip's name of the architecture; needed where the tokenizer comes from a hub.

    Raises:
        MachineError: The tokenizer lies on a hub that cannot be reached.
    """

    def __init__(self, config: dict[str, Any], architecture: str):
        text = config["text_cfg"]
        self.architecture = architecture
        self.context_length = int(text.get("context_length", 77))
        self._hub = text.get("hf_tokenizer_name")
        self._tokenizer = self._from_hub() if self._hub else self._byte_pairs()

    def _byte_pairs(self) -> Any:
        from open_clip.tokenizer import SimpleTokenizer

        return SimpleTokenizer(context_length=self.context_length)

    def _from_hub(self) -> Any:
        import open_clip

        try:
            with hub_as_it_is():
                return open_clip.get_tokenizer(self.architecture, context_length=self.context_length)
        except Exception as error:
            raise MachineError(
                f"{self.architecture} needs the tokenizer '{self._hub}', which could not be loaded "
                f"({type(error).__name__}).",
                f"Put the files of {self._hub} into the hub's cache (HF_HOME), or choose another --clip.",
            ) from error

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return (n, context_length) int64 ids."""
        return self._tokenizer(list(texts), context_length=self.context_length)

    def unknown(self, texts: Sequence[str]) -> list[str]:
        """Return nothing: byte pairs can spell every word."""
        return []

    def too_long(self, texts: Sequence[str]) -> list[str]:
        """Return the texts that do not fit the context and are cut."""
        room = self.context_length - 2  # a token holds at least one byte: shorter texts need not be split
        long = [text for text in texts if len(text.encode("utf-8")) > room]
        return [text for text in long if len(self._tokenizer.encode(text)) > room]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON document that `tokenizer_from_json` reads."""
        return {"kind": "open_clip", "architecture": self.architecture, "context_length": self.context_length}


class NoTokenizer:
    """Stands where a text tower's tokenizer is not known; every question is answered by an error.

    Args:
        vocab_size: Number of ids that the text tower has.
        context_length: L.
    """

    def __init__(self, vocab_size: int, context_length: int):
        self.vocab_size = vocab_size
        self.context_length = context_length

    def _refuse(self) -> UsageError:
        return UsageError(
            f"the text tower of this CLIP has {self.vocab_size} ids, and no tokenizer of that size is known, so words "
            "cannot be encoded.",
            "In Python, give predict_scores text features of your own; or choose another CLIP with --clip.",
        )

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Raise UsageError."""
        raise self._refuse()

    def unknown(self, texts: Sequence[str]) -> list[str]:
        """Raise UsageError."""
        raise self._refuse()

    def too_long(self, texts: Sequence[str]) -> list[str]:
        """Raise UsageError."""
        raise self._refuse()

    def to_json(self) -> dict[str, Any]:
        """Return a JSON document that `tokenizer_from_json` reads."""
        return {"kind": "none", "vocab_size": self.vocab_size, "context_length": self.context_length}


def tokenizer_from_json(document: dict[str, Any], config: dict[str, Any]) -> Tokenizer:
    """Build the tokenizer that a self-describing file names.

    Args:
        document: What `to_json` of a tokenizer returned.
        config: open_clip's model configuration of the same file.
    """
    if document["kind"] == "words":
        return WordTokenizer.from_json(document)
    if document["kind"] == "none":
        return NoTokenizer(document["vocab_size"], document["context_length"])
    return OpenClipTokenizer(config, document["architecture"])
