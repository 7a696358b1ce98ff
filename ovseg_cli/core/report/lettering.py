"""How words get into a figure: a font that is there on every machine, measured and wrapped.

Pillow carries one small font of its own (ASCII only). Names in other scripts use the first system font that has their
letters; where there is none, accents are dropped and the rest becomes a question mark, so that nothing is invisible.
"""

import functools
import unicodedata

from PIL import ImageFont

SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial.ttf",
    "Arial Unicode.ttf",
    "msyh.ttc",
    "PingFang.ttc",
)
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@functools.lru_cache(maxsize=64)
def built_in(size: int) -> Font:
    """Return Pillow's own font at a size in pixels."""
    return ImageFont.load_default(size)


@functools.lru_cache(maxsize=64)
def _system(name: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


def _shape(font: Font, text: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(text)
    return mask.size, bytes(mask)


def has_letters(font: Font, text: str) -> bool:
    """Tell whether a font draws every letter of `text` as something else than its 'missing' box."""
    missing = _shape(font, "\U0010ffff")
    return all(letter.isspace() or _shape(font, letter) != missing for letter in set(text))


@functools.lru_cache(maxsize=4096)
def lettering(text: str, size: int) -> tuple[str, Font]:
    """Choose how to draw a text.

    Args:
        text: One line, any script.
        size: Height in pixels.

    Returns:
        The text as it can be drawn, and the font to draw it with.
    """
    font = built_in(size)
    if text.isascii():
        return text, font
    candidates = (font, *(f for name in SYSTEM_FONTS if (f := _system(name, size))))
    fitting = next((f for f in candidates if has_letters(f, text)), None)
    if fitting is not None:
        return text, fitting
    plain = unicodedata.normalize("NFKD", text)
    return "".join(c if c.isascii() else "?" for c in plain if not unicodedata.combining(c)), font


def text_width(text: str, size: int) -> int:
    """Width in pixels of one line."""
    shown, font = lettering(text, size)
    return round(font.getlength(shown) + 0.5)


def line_height(size: int) -> int:
    """Distance in pixels from one line to the next."""
    return round(size * 1.25)


def wrap(text: str, size: int, width: int) -> list[str]:
    """Break a text into lines of at most `width` pixels: between words, inside a word only where it is too long.

    Args:
        text: Any text; runs of white space count as one blank.
        size: Font size in pixels.
        width: Longest line in pixels; a single letter is never broken.

    Returns:
        At least one line.
    """
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if text_width(joined, size) <= width:
            lines[-1] = joined
            continue
        pieces = _break_word(word, size, width)
        lines.extend(pieces if lines[-1] else pieces[1:])
        if not lines[0]:
            lines[0] = pieces[0]
    return lines


def _break_word(word: str, size: int, width: int) -> list[str]:
    pieces = [""]
    for letter in word:
        if pieces[-1] and text_width(pieces[-1] + letter, size) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces
