"""Many pictures, from files and folders to an output folder: nothing is overwritten by accident, nothing bad stops it.

Each picture becomes `STEM.png` (class ids, 8 or 16 bit), `STEM_overlay.png` (for people) and `STEM.json` (masks as COCO
RLE; see `segmentation.Segmentation.document`). Finding the pictures needs no torch.
"""

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg_cli.core.errors import UsageError
from ovseg_cli.core.files import digest_of, make_folder
from ovseg_cli.core.reporter import Reporter, Silent

if TYPE_CHECKING:
    from ovseg_cli.core.prediction.segmenter import Query, Segmenter

_NO_PICTURES = {"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5"}  # formats that Pillow names but does not decode itself
_NAMED = 5
_ALIKE = 0.75  # of the letters of two stems, from which one is offered for the other


@dataclass(frozen=True)
class Job:
    """One picture to do: where it lies and the stem of its output files."""

    path: Path
    stem: str


@dataclass(frozen=True)
class Jobs:
    """What the inputs hold.

    Attributes:
        pictures: In the order given; folders by name.
        skipped: Files in folders that are no pictures.
        unsearched: Folders in folders; what is in them is not done.
    """

    pictures: tuple[Job, ...]
    skipped: tuple[Path, ...] = ()
    unsearched: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Done:
    """What became of the pictures.

    Attributes:
        outputs: The files of each finished picture, in order.
        failed: Path and reason of each picture that could not be done.
        skipped: Files in folders that are no pictures.
    """

    outputs: tuple[tuple[Job, tuple[Path, ...]], ...]
    failed: tuple[tuple[Path, str], ...] = ()
    skipped: tuple[Path, ...] = ()

    def error(self) -> UsageError | None:
        """The error to end with when pictures failed (exit code 2), or None."""
        if not self.failed:
            return None
        total = len(self.outputs) + len(self.failed)
        if total == 1:
            return UsageError(self.failed[0][1])
        names = ", ".join(str(path) for path, _ in self.failed[:_NAMED])
        more = f" and {len(self.failed) - _NAMED} more" if len(self.failed) > _NAMED else ""
        verb = "picture" if len(self.failed) == 1 else "pictures"
        return UsageError(
            f"{len(self.failed)} of {total} {verb} could not be segmented: {names}{more}.", "The others are finished."
        )


def find_pictures(inputs: Sequence[Path], out: Path) -> Jobs:
    """List the pictures of files and folders and choose the names of what will be written.

    Args:
        inputs: Files, taken whatever their ending; folders, searched for picture endings (not below).
        out: Where the results will be written.

    Returns:
        The jobs. Two pictures of one stem become STEM and STEM-2; a file given twice is done once.

    Raises:
        UsageError: An input does not exist, a folder holds no picture, or `out` is the folder of a picture.
    """
    pictures: dict[Path, Path] = {}
    skipped: list[Path] = []
    for given in inputs:
        found, others = _look_into(Path(given))
        for path in found:
            pictures.setdefault(path.resolve(), path)
        skipped += others
    if not pictures:
        raise UsageError("there is no picture to segment.", "Name a picture or a folder of pictures.")
    for real, path in pictures.items():
        if real.parent == Path(out).resolve():
            raise UsageError(
                f"--out {out}: this is the folder of {path.name} itself; label maps would lie among the pictures.",
                "Choose another --out.",
            )
    files, below = [p for p in skipped if not p.is_dir()], [p for p in skipped if p.is_dir()]
    return Jobs(tuple(_with_stems(pictures.values())), tuple(files), tuple(below))


def predict_folder(
    segmenter: "Segmenter", jobs: Jobs, query: "Query", out: Path, reporter: Reporter | None = None
) -> Done:
    """Segment pictures one by one and write their files as each is finished.

    Pictures that an earlier call finished with the same model, settings and names are not done again.

    Args:
        segmenter: The model.
        jobs: From `find_pictures`.
        query: From `Segmenter.query`.
        out: Folder of the results; made where it is missing.
        reporter: Receives progress and, by name, each picture that could not be done.

    Returns:
        What was written and what failed; `Done.error()` is the error to end with. After an interruption
        (KeyboardInterrupt passes through) all finished pictures are whole.

    Raises:
        MachineError: The output folder cannot be written.
    """
    from ovseg_cli.core.prediction.segmentation import OUTPUTS

    reporter = reporter or Silent()
    make_folder(Path(out))
    key, made = segmenter.fingerprint(query), 0
    if jobs.skipped:
        count = len(jobs.skipped)
        word = "file that is no picture" if count == 1 else "files that are no pictures"
        reporter.say(f"skipping {count} {word}: {_names(jobs.skipped)}")
    if jobs.unsearched:
        reporter.say(f"folders within folders are not searched; name them, too: {_names(jobs.unsearched, full=True)}")
    outputs: list[tuple[Job, tuple[Path, ...]]] = []
    failed: list[tuple[Path, str]] = []
    try:
        for job in reporter.track(jobs.pictures, "segmenting", len(jobs.pictures)):
            try:
                made_from = _made_from(job, key)
                if not _is_finished(Path(out), job, made_from):
                    _one(segmenter, job, query, Path(out), made_from)
                    made += 1
                outputs.append((job, tuple(Path(out) / name.format(job.stem) for name in OUTPUTS)))
            except (UsageError, MemoryError) as error:
                reason = str(error) or f"{job.path}: there is not enough memory for this picture."
                failed.append((job.path, reason))
                reporter.warn(reason)
    except KeyboardInterrupt:
        reporter.say(f"interrupted: {len(outputs)} of {len(jobs.pictures)} pictures are finished in {out}")
        raise
    if made < len(outputs):
        reporter.say(f"{len(outputs) - made} of {len(jobs.pictures)} pictures were finished before")
    return Done(tuple(outputs), tuple(failed), jobs.skipped)


def _made_from(job: Job, key: str) -> str:
    """Fingerprint of a picture's file and of what is done to it; an unreadable file has none."""
    try:
        facts = job.path.stat()
    except OSError:
        return ""
    return digest_of([key, str(job.path.resolve()), str(facts.st_size), str(facts.st_mtime_ns)])


def _is_finished(out: Path, job: Job, made_from: str) -> bool:
    """Whether all files are there and say that they were made from the same; the JSON is always written last."""
    from ovseg_cli.core.prediction.segmentation import OUTPUTS

    paths = [out / name.format(job.stem) for name in OUTPUTS]
    try:
        return (
            bool(made_from)
            and all(map(Path.is_file, paths))
            and json.loads(paths[-1].read_text())["made_from"] == made_from
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False  # cut off or somebody else's: done again, or refused there


def _names(paths: Sequence[Path], full: bool = False) -> str:
    names = ", ".join(str(path) if full else path.name for path in paths[:_NAMED])
    return f"{names}, …" if len(paths) > _NAMED else names


def _one(segmenter: "Segmenter", job: Job, query: "Query", out: Path, made_from: str) -> None:
    from ovseg_cli.core.prediction.segmentation import OUTPUTS, refuse_foreign
    from ovseg_cli.core.prediction.segmenter import read_picture

    refuse_foreign([out / name.format(job.stem) for name in OUTPUTS])  # before the work, not after it
    pixels, source = read_picture(job.path)
    replace(segmenter.segment(pixels, query, source), made_from=made_from).save(out, job.stem)


def _look_into(path: Path) -> tuple[list[Path], list[Path]]:
    if path.is_file():
        return [path], []
    if not path.exists():
        hit = _similar_file(path)
        raise UsageError(f"{path}: there is no such file or folder.", f"Did you mean '{hit}'?" if hit else None)
    if not path.is_dir():
        raise UsageError(f"{path}: this is neither a file nor a folder.")
    try:
        entries = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise UsageError(f"{path}: the folder cannot be read ({error.strerror}).") from error
    endings = picture_endings()
    found = [p for p in entries if p.is_file() and p.suffix.lower() in endings]
    if not found:
        raise UsageError(f"{path}: there is no picture in this folder, {_what_else(entries)}.", _mend(entries))
    return found, [p for p in entries if p not in set(found)]


def _similar_file(path: Path) -> Path | None:
    """Find a file that a slip of the finger may have meant: one part of its name is the same, the other alike."""
    siblings = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    same_stem = [p for p in siblings if p.stem.casefold() == path.stem.casefold()]
    by_stem = {p.stem.casefold(): p for p in siblings if p.suffix.casefold() == path.suffix.casefold()}
    hits = difflib.get_close_matches(path.stem.casefold(), list(by_stem), n=1, cutoff=_ALIKE)
    return next(iter([*same_stem, *(by_stem[hit] for hit in hits)]), None)


def _what_else(entries: Sequence[Path]) -> str:
    below = [path for path in entries if path.is_dir()]
    if not entries:
        return "it is empty"
    if len(below) == len(entries):
        return "only folders, which are not searched"
    rest = "; folders in it are not searched" if below else ""
    return f"none of its {len(entries) - len(below)} files is a picture{rest}"


def _mend(entries: Sequence[Path]) -> str:
    below = [path for path in entries if path.is_dir()]
    return f"Name a folder of pictures, for instance {below[0]}" if below else "Name a folder of pictures."


def picture_endings() -> set[str]:
    """File endings (".png", ".jpg", …) of the formats that can be read."""
    from PIL import Image

    Image.init()
    readable = set(Image.OPEN) - _NO_PICTURES
    return {ending for ending, name in Image.registered_extensions().items() if name in readable}


def _with_stems(paths: Iterable[Path]) -> list[Job]:
    """Choose stems whose output files never meet, even where a file system ignores case."""
    from ovseg_cli.core.prediction.segmentation import OUTPUTS

    taken: set[str] = set()
    jobs = []
    for path in paths:
        number, stem = 1, path.stem
        while any(name.format(stem).casefold() in taken for name in OUTPUTS):
            number += 1
            stem = f"{path.stem}-{number}"
        taken.update(name.format(stem).casefold() for name in OUTPUTS)
        jobs.append(Job(path, stem))
    return jobs
