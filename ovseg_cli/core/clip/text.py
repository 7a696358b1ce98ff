"""How class names become text features: names × templates × synonyms, encoded once and kept on disk.

Source: CAT-Seg and PixelCLIP, code (see `template_features`); with one synonym a class it is CLIP's own ensemble.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional as F

from ovseg_cli.core.clip.model import ClipModel
from ovseg_cli.core.errors import MachineError, UsageError
from ovseg_cli.core.files import digest_of, write_bytes
from ovseg_cli.core.reporter import Reporter, Silent
from ovseg_cli.core.types import TextFeatures, Vocabulary

BATCH = 256  # texts that go through the encoder at once


def text_features(
    clip: ClipModel, vocabulary: Vocabulary, cache_dir: Path | None = None, reporter: Reporter | None = None
) -> TextFeatures:
    """Return the text features of a vocabulary, from the cache where it has them.

    Args:
        clip: Encodes; the features come back on its device.
        vocabulary: Names, synonyms, templates and the rule for synonyms.
        cache_dir: Folder of the disk cache; None encodes anew. A file is named by the fingerprint of text weights,
            configuration, tokenizer, templates and names; a broken one is made again and a warning given.
        reporter: Warned about words that the tokenizer does not know and texts that it cuts.

    Returns:
        Under rule "mean" K rows; under "max" one row for each synonym, in class order.
    """
    reporter = reporter or Silent()
    texts = _all_texts(vocabulary)
    _warn_about(clip, vocabulary, texts, reporter)
    classes = _class_of_row(vocabulary)
    path = None if cache_dir is None else _cache_path(clip, vocabulary, cache_dir)
    features = None if path is None else _read_cache(path, (len(classes), clip.embed_dim), reporter)
    if features is None:
        features = encode_vocabulary(clip, vocabulary, reporter)
        _write_cache(path, features, reporter)
    return TextFeatures(features, classes, vocabulary.num_classes).to(clip.device)


def encode_vocabulary(clip: ClipModel, vocabulary: Vocabulary, reporter: Reporter | None = None) -> Tensor:
    """Return (M, D) unit-length features: mean over templates, then normalised.

    Under rule "mean" a class has one row (`template_features`); under "max" each synonym has its own.
    """
    if vocabulary.synonym_rule == "max":
        singles = tuple((synonym,) for synonyms in vocabulary.synonyms for synonym in synonyms)
        per_template = template_features(clip, singles, vocabulary.templates, reporter)
    else:
        per_template = template_features(clip, vocabulary.synonyms, vocabulary.templates, reporter)
    return F.normalize(per_template.mean(dim=1), dim=-1)


@torch.no_grad()
def template_features(
    clip: ClipModel, synonyms: Sequence[Sequence[str]], templates: Sequence[str], reporter: Reporter | None = None
) -> Tensor:
    """Return one feature a class and template, before the mean over templates.

    Each text's feature is normalised; the synonyms of a class are averaged within a template and normalised again.

    Args:
        clip: Encodes.
        synonyms: For each of K classes its texts, at least one.
        templates: T sentences with one `{}` each.
        reporter: Shown the progress.

    Returns:
        (K, T, D) float32, unit length.

    Source: PixelCLIP and CAT-Seg, code (`class_embeddings`); the papers describe one name a class.
    """
    texts = [template.format(name) for names in synonyms for template in templates for name in names]
    unique = list(dict.fromkeys(texts))
    encoded = F.normalize(_encode(clip, unique, reporter or Silent()), dim=-1)
    place = {text: i for i, text in enumerate(unique)}
    rows = [
        encoded[[place[template.format(name)] for name in names]].mean(dim=0)
        for names in synonyms
        for template in templates
    ]
    return F.normalize(torch.stack(rows), dim=-1).unflatten(0, (len(synonyms), len(templates)))


def _encode(clip: ClipModel, texts: Sequence[str], reporter: Reporter) -> Tensor:
    """Encode texts in batches of similar length, so that short ones do not pay for long ones."""
    tokens = clip.tokenize(texts)
    order = tokens.argmax(dim=1).argsort(stable=True)
    batches = tokens[order].split(BATCH)
    track = reporter.track(batches, "text features", len(batches)) if len(batches) > 1 else batches
    encoded = torch.cat([clip.encode_text(batch.to(clip.device)).float() for batch in track])
    return encoded[order.argsort().to(encoded.device)]


def _all_texts(vocabulary: Vocabulary) -> list[str]:
    if not vocabulary.class_names or not all(vocabulary.synonyms) or not vocabulary.templates:
        raise UsageError("a vocabulary needs at least one class, a text for each, and a template.")
    return [t.format(name) for names in vocabulary.synonyms for name in names for t in vocabulary.templates]


def _class_of_row(vocabulary: Vocabulary) -> Tensor:
    if vocabulary.synonym_rule != "max":
        return torch.arange(vocabulary.num_classes)
    return torch.tensor([i for i, names in enumerate(vocabulary.synonyms) for _ in names])


def _warn_about(clip: ClipModel, vocabulary: Vocabulary, texts: list[str], reporter: Reporter) -> None:
    _warn_about_unknown(clip, vocabulary, reporter)
    cut = set(clip.tokenizer.too_long(texts))
    names = [name for names in vocabulary.synonyms for name in names]
    cut_names = [n for n in names if cut and any(t.format(n) in cut for t in vocabulary.templates)]
    if cut_names:
        length = clip.tokenizer.context_length
        reporter.warn(f"{_few(cut_names)}: longer than the {length} tokens that {clip.name} reads; the end is cut off")


def unknown_words(clip: ClipModel, vocabulary: Vocabulary) -> list[str]:
    """Words of the names and synonyms that the tokenizer does not know, sorted; their features are random."""
    return clip.tokenizer.unknown([name for names in vocabulary.synonyms for name in names])


def _warn_about_unknown(clip: ClipModel, vocabulary: Vocabulary, reporter: Reporter) -> None:
    """Name unknown words by where they come from: classes, the words that stand for a background, templates."""
    place, synonyms = vocabulary.background, vocabulary.synonyms
    of_classes = clip.tokenizer.unknown([name for i, row in enumerate(synonyms) if i != place for name in row])
    if of_classes:
        reporter.warn(
            f"{clip.name} was never trained on {_few(of_classes)}: each gets a random feature, which may win anywhere. "
            "The pixels that it gets mean nothing, and other classes lose them. --clip ViT-B-16 knows every word"
        )
    of_background = sorted(set(clip.tokenizer.unknown(synonyms[place])) - set(of_classes)) if place is not None else []
    if of_background:
        name, words = vocabulary.class_names[place or 0], synonyms[place or 0]
        more = ", …" if len(words) > 3 else ""
        among = f"'{name}' stands for {len(words)} words ({_few(words[:3])}{more}), and " if len(words) > 1 else ""
        reporter.warn(
            f"{among}{clip.name} was never trained on {_few(of_background)}: "
            f"what becomes '{name}' by this means nothing"
        )
    of_templates = clip.tokenizer.unknown([template.format("") for template in vocabulary.templates])
    if of_templates:
        reporter.warn(f"{clip.name} was never trained on {_few(of_templates)}, words of the templates: all suffers")


def _few(words: Sequence[str]) -> str:
    shown = ", ".join(f"'{w}'" for w in words[:8])
    return shown if len(words) <= 8 else f"{shown} and {len(words) - 8} more"


def _cache_path(clip: ClipModel, vocabulary: Vocabulary, folder: Path) -> Path:
    key = digest_of(["text-features-1", clip.text_digest, vocabulary.digest()])
    return folder / "text" / f"{key}.safetensors"


def _read_cache(path: Path, shape: tuple[int, int], reporter: Reporter) -> Tensor | None:
    """Return cached features, or None if there are none or the file is broken."""
    if not path.exists():
        return None
    try:
        features = load_file(path)["features"]
    except Exception as error:  # safetensors raises its own type, OSError or KeyError
        reporter.warn(f"{path}: cached text features cannot be read ({type(error).__name__}); they are made again")
        return None
    if tuple(features.shape) != shape or not bool(features.isfinite().all()):
        reporter.warn(f"{path}: cached text features have another form than expected; they are made again")
        return None
    return features.float()


def _write_cache(path: Path | None, features: Tensor, reporter: Reporter) -> None:
    if path is None:
        return
    try:
        write_bytes(path, save({"features": features.cpu().contiguous()}))
    except MachineError as error:
        reporter.warn(f"text features are not cached: {error.message}")
