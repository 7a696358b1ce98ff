"""The Python API: a model and a few words make a label map of any picture.

Example:
    >>> from PIL import Image
    >>> from ovseg_cli import load
    >>> model = load("maskclip", clip="toy-clip", device="cpu")
    >>> result = model.predict(Image.new("RGB", (96, 64), "green"), ["grass", "a red striped toy"])
    >>> result.label_map.shape  # the picture's (H, W)
    (64, 96)
    >>> sorted(path.name for path in result.save("predictions", "scene"))
    ['scene.json', 'scene.png', 'scene_overlay.png']
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from ovseg_cli import __version__
from ovseg_cli.core.clip.prompts import resolve_templates
from ovseg_cli.core.data.images import load_image, to_rgb
from ovseg_cli.core.errors import ShapeError, UsageError
from ovseg_cli.core.files import digest_of
from ovseg_cli.core.prediction.class_lists import BACKGROUND, Names, parse_classes
from ovseg_cli.core.prediction.segmentation import Segmentation, smallest_dtype
from ovseg_cli.core.report.seen import SeenClasses
from ovseg_cli.core.reporter import Reporter, Silent
from ovseg_cli.core.runtime import Runtime, folders, open_runtime
from ovseg_cli.core.types import Readout, TextFeatures, Vocabulary

if TYPE_CHECKING:
    from ovseg_cli.core.data.specs import DataChoice
    from ovseg_cli.core.methods.base import Method
    from ovseg_cli.core.methods.build import ModelChoice

Picture = str | Path | Image.Image | np.ndarray | torch.Tensor


@dataclass(frozen=True)
class Query:
    """What is looked for, encoded once for any number of pictures.

    Attributes:
        class_names: K names of the result; with a threshold and no class `background`, that one is added.
        text: Text features of the names.
        readout: How scores become ids.
        unknown_words: Words of the names that the model was never trained on; what it predicts for them means nothing.
        seen: Which of the names were seen in training, or in the class split of the names; None where nobody knows.
    """

    class_names: tuple[str, ...]
    text: TextFeatures
    readout: Readout
    unknown_words: tuple[str, ...] = ()
    seen: SeenClasses | None = None


class Segmenter:
    """A method with its weights, ready for pictures and words.

    Args:
        method: Built and on its device.
        data: Label of the data set that it was made on (`toy:combo`), whose names are the default; or None.
        cache: Folder of the disk cache of text features; None encodes anew.
        reporter: Receives warnings, for instance about words that the model never saw.
        unseen: The class split of the user's own that it was made with, if there was one.
        templates: Sentences that its run keeps, which it is scored with; None: those of its data set or its method.
    """

    def __init__(
        self,
        method: "Method",
        data: str | None = None,
        cache: Path | None = None,
        reporter: Reporter | None = None,
        unseen: str | None = None,
        templates: Sequence[str] | None = None,
    ):
        self.method = method
        self.label = f"{method.name} {method.clip.name}"
        self.data, self.unseen = data, unseen
        self.templates = None if templates is None else tuple(templates)
        self.cache = cache
        self.reporter = reporter or Silent()
        self._queries: dict[tuple[Any, ...], Query] = {}

    def __repr__(self) -> str:
        """One line: method, CLIP, device, and the data set whose names are the default."""
        names = f", names of {self.data}" if self.data else ""
        return f"Segmenter({self.method.name}, {self.method.clip.name}, {self.method.clip.device}{names})"

    @classmethod
    def build(
        cls, choice: "ModelChoice", runtime: Runtime, cache: Path | None = None, reporter: Reporter | None = None
    ) -> "Segmenter":
        """Load what `methods.build.choose_model` has chosen.

        Raises:
            UsageError: A setting does not fit the method.
            MachineError: The weights are missing.
        """
        from ovseg_cli.core.methods.build import build_method

        method = build_method(choice, runtime.device, reporter)
        if choice.run is None or not choice.run.config["run"].get("data"):
            return cls(method, None, cache, reporter)
        data, unseen = choice.run.data
        kept = choice.run.config.get("vocabulary", {}).get("templates")
        return cls(method, data, cache, reporter, unseen, kept)

    @torch.no_grad()
    def predict(
        self,
        image: Picture,
        names: Names | Vocabulary | None = None,
        templates: Sequence[str] | None = None,
        background_threshold: float | None = None,
    ) -> Segmentation:
        """Give every pixel of a picture one of the names.

        Args:
            image: A path, a PIL image, an (H, W, 3) or (H, W) uint8 array, or a (3, H, W) uint8 tensor.
            names: Class names in the syntax of `class_lists`, a list, or a vocabulary; None takes those of the data
                set that the run was made on. A class called "background" collects stuff words.
            templates: Sentences with one `{}` each, or names of sets (`imagenet`); None takes the vocabulary's own.
            background_threshold: Pixels whose best class has a lower probability become background, 0 to 1. The
                softmax over the names is taken at the method's `probability_scale`. None: the method's own, where the
                names have a background.

        Returns:
            The segmentation, at the picture's own size.

        Raises:
            UsageError: The picture cannot be read, or the names or the threshold make no sense.
        """
        pixels, source = read_picture(image)
        query = self.query(names, templates, background_threshold)
        return self.segment(pixels, query, source)

    def query(
        self,
        names: Names | Vocabulary | None = None,
        templates: Sequence[str] | None = None,
        background_threshold: float | None = None,
    ) -> Query:
        """Check and encode names; the arguments are those of `predict`. Asked twice, encoded once."""
        vocabulary = self._vocabulary(names, templates)
        _check_threshold(background_threshold)
        key = (vocabulary.digest(), vocabulary.class_names, vocabulary.unseen, background_threshold)
        if key not in self._queries:
            self._queries[key] = self._encode(vocabulary, background_threshold)
        return self._queries[key]

    @torch.no_grad()
    def segment(self, pixels: np.ndarray, query: Query, source: str = "") -> Segmentation:
        """Segment one picture, (H, W, 3) uint8 RGB, by a query."""
        from ovseg_cli.core.nn.label_maps import label_map

        tensor = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        prediction = self.method.predict([tensor], query.text)[0]
        count = len(query.class_names)
        ids = label_map(prediction, query.readout, query.text.class_of_row, count).cpu().numpy()
        return Segmentation(
            label_map=ids.astype(smallest_dtype(count)),
            class_names=query.class_names,
            image=pixels,
            background=query.readout.background,
            source=source,
            model=self.label,
            unknown_words=query.unknown_words,
            seen=query.seen,
        )

    def predict_scores(
        self,
        images: Sequence[torch.Tensor],
        text_features: torch.Tensor,
        output_size: tuple[int, int],
        seen: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return dense scores for text features of one's own: for comparisons with other code, not for large pictures.

        Args:
            images: Pictures, each (3, H, W) uint8 RGB; masks are made on one canvas that holds all of them.
            text_features: (K, D), unit length.
            output_size: (H', W') of the scores.
            seen: (K,) bool, which classes were trained on; None: none.

        Returns:
            (B, K, H', W') float32.
        """
        return self.method.predict_scores(images, text_features, output_size, seen)

    def fingerprint(self, query: Query) -> str:
        """Digest of all that decides a label map beside the picture: method, settings, weights, names, readout."""
        method, text = self.method, query.text
        return digest_of(
            [
                __version__,
                method.name,
                method.config.model_dump_json(),
                method.digest,
                *query.class_names,
                str(query.readout),
                str(text.class_of_row.tolist()),
                text.features.float().cpu().numpy().tobytes(),
                str(None if text.seen is None else text.seen.tolist()),
                str(query.seen),
            ]
        )

    def _vocabulary(self, names: Names | Vocabulary | None, templates: Sequence[str] | None) -> Vocabulary:
        if names is None:
            names = self._own_vocabulary()
        if isinstance(names, Vocabulary):
            return names if templates is None else replace(names, templates=resolve_templates(templates))
        return parse_classes(names, templates or self.templates)

    def _own_vocabulary(self) -> Vocabulary:
        """Names, class split and sentences that the run is scored with."""
        from ovseg_cli.core.data.find import find_data

        if self.data is None:
            raise UsageError(f"{self.label}: there are no class names to look for.", 'Give some: --classes "cat, dog".')
        return self.vocabulary_of(find_data(self.data, self.unseen, folders()))

    def vocabulary_of(self, choice: "DataChoice") -> Vocabulary:
        """Return the names of a data set as this model is scored with them."""
        from ovseg_cli.core.methods.texts import default_names, default_templates

        spec, method = choice.spec, type(self.method)
        templates = self.templates or default_templates(method, spec.preset.templates)
        return spec.vocabulary(choice.split, templates, default_names(method, [v.id for v in spec.name_variants]))

    def _encode(self, vocabulary: Vocabulary, threshold: float | None) -> Query:
        from ovseg_cli.core.clip.text import unknown_words
        from ovseg_cli.core.methods.texts import method_text

        clip = self.method.clip
        text = method_text(self.method, vocabulary, self.cache, self.reporter).to(clip.device)
        if remark := self.method.remark(text):
            self.reporter.say(remark)
        names, background = vocabulary.class_names, vocabulary.background
        if threshold is None and background is not None:
            threshold = self.method.background_threshold
        if threshold is not None and background is None:
            names, background = (*names, BACKGROUND), len(names)
        if len(text.features) == 1:  # a softmax over one name is 1 everywhere, so that a threshold does nothing either
            self.reporter.warn(f"there is only one name: every pixel becomes '{names[0]}'. Add names, or `background`.")
        scale = None if threshold is None else self.method.probability_scale
        readout = Readout(softmax_scale=scale, threshold=threshold, background=background)
        seen = _seen_classes(text, vocabulary, len(names))
        return Query(names, text, readout, tuple(unknown_words(clip, vocabulary)), seen)


def _seen_classes(text: TextFeatures, vocabulary: Vocabulary, count: int) -> SeenClasses | None:
    """Which of `count` names were seen: what the model's training says, else the class split of the names."""
    if text.seen is None:
        known = SeenClasses.of_split(vocabulary.unseen) if any(vocabulary.unseen) else None
    else:
        seen = set(text.class_of_row[text.seen].tolist())
        known = SeenClasses(tuple(i in seen for i in range(vocabulary.num_classes)), "in training")
    if known is None:
        return None
    flags = (None if i == vocabulary.background else flag for i, flag in enumerate(known.flags))
    added = [None] * (count - vocabulary.num_classes)
    return replace(known, flags=(*flags, *added))


def load(
    model: str | Path,
    clip: str | None = None,
    pretrained: str | None = None,
    device: str | None = None,
    runs: Path | None = None,
    reporter: Reporter | None = None,
    **settings: Any,
) -> Segmenter:
    """Load a model by what `ovseg predict` calls MODEL.

    Args:
        model: A run folder (`runs/x`), `latest`, or the name of a training-free method.
        clip: An open_clip architecture, `toy-clip` or a file; None takes the run's, else ViT-B-16 of OpenAI.
        pretrained: Tag or file with the weights of `clip`.
        device: "cpu", "cuda", "cuda:1"; None takes a GPU where there is one.
        runs: Folder of all runs, for `latest`.
        reporter: Receives warnings and progress.
        settings: Settings of the method, as `--set` takes them.

    Raises:
        UsageError: There is no such method, run or setting.
        MachineError: The weights or the device are missing.
    """
    from ovseg_cli.core.methods.build import choose_model

    places = folders(runs=runs)
    choice = choose_model(str(model), places.runs, None, clip, pretrained, settings)
    runtime = open_runtime() if device is None else Runtime((device,))
    return Segmenter.build(choice, runtime, places.cache, reporter)


def read_picture(image: Picture) -> tuple[np.ndarray, str]:
    """Bring a picture in any accepted form to (H, W, 3) uint8 RGB.

    Returns:
        The pixels, and the path that it came from (or "").

    Raises:
        UsageError: It cannot be read, or has another type or shape.
    """
    if isinstance(image, str | Path):
        return load_image(Path(image), UsageError), str(image)
    if isinstance(image, Image.Image):
        return to_rgb(image), ""
    pixels = image.permute(1, 2, 0).cpu().numpy() if isinstance(image, torch.Tensor) and image.ndim == 3 else image
    if not isinstance(pixels, np.ndarray):
        raise ShapeError(f"a picture is a path, a PIL image, an array or a (3, H, W) tensor, but got {type(image)}.")
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape or pixels.dtype != np.uint8:
        raise ShapeError(f"a picture is (H, W, 3) uint8 (a tensor (3, H, W)), but got {pixels.shape} {pixels.dtype}.")
    return pixels, ""


def _check_threshold(threshold: float | None) -> None:
    if threshold is not None and not 0 < threshold < 1:
        raise UsageError(f"--background-threshold {threshold:g}: a probability lies between 0 and 1.", "Try 0.3.")
