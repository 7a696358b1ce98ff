"""What a screen reader needs of a page, checked in its HTML; and the contrast of the colours of its styles."""

import re
from html.parser import HTMLParser

_VOID = {"meta", "img", "input", "br", "link", "rect", "line", "circle", "path"}
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")


class Tree(HTMLParser):
    """Elements in order: tag, attributes, the tags around, and the text inside."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self.open: list[Element] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attributes}, [e.tag for e in self.open])
        self.elements.append(element)
        for other in self.open:
            other.inside.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open and self.open[-1].tag == tag, f"</{tag}> closes {self.open[-1:]}"
            self.open.pop()

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data

    def all(self, *tags: str) -> list["Element"]:
        return [element for element in self.elements if element.tag in tags]


class Element:
    """One element."""

    def __init__(self, tag: str, attributes: dict[str, str], around: list[str]) -> None:
        self.tag, self.attributes, self.around = tag, attributes, around
        self.text = ""
        self.inside: list[Element] = []

    def __repr__(self) -> str:
        return f"<{self.tag} {self.attributes}>"


def faults(html: str) -> list[str]:
    """List what would leave somebody out; an empty list is what one wants."""
    tree = Tree(html)
    found = [f"<{e.tag}> is never closed" for e in tree.open]
    return found + _ids(tree) + _names(tree) + _headings(tree) + _tables(tree) + _landmarks(tree)


def _ids(tree: Tree) -> list[str]:
    ids = [e.attributes["id"] for e in tree.elements if "id" in e.attributes]
    found = [f"id {i} stands twice" for i in sorted(set(ids)) if ids.count(i) > 1]
    for element in tree.elements:
        named = [element.attributes.get(key, "") for key in ("aria-labelledby", "for")]
        named.append(element.attributes.get("href", "").removeprefix("#"))
        found += [f"{element} points to no element" for name in named for i in name.split() if i not in ids]
    return found


def _names(tree: Tree) -> list[str]:
    labelled = {e.attributes.get("for") for e in tree.all("label")}
    found = []
    for element in tree.all("input", "select"):
        is_named = element.attributes.get("id") in labelled or element.attributes.get("aria-label", "").strip()
        if not is_named and "label" not in element.around:
            found.append(f"{element} has no label")
    for element in tree.all("button", "a", "summary"):
        if not (element.text.strip() or element.attributes.get("aria-label", "").strip()):
            found.append(f"{element} has no name")
    found += [f"{e} has no alt" for e in tree.all("img") if not e.attributes.get("alt", "").strip()]
    hidden = [e for e in tree.elements if e.attributes.get("aria-hidden") == "true"]
    unread = {id(e) for h in hidden for e in (h, *h.inside)}
    for element in tree.all("svg"):
        if id(element) not in unread and not element.attributes.get("aria-label"):
            found.append(f"{element} is neither hidden nor named")
    focused = [e for e in tree.elements if e.attributes.get("tabindex") == "0"]
    keys = ("aria-label", "aria-labelledby")
    return found + [f"{e} takes the focus without a name" for e in focused if not any(k in e.attributes for k in keys)]


def _headings(tree: Tree) -> list[str]:
    levels = [int(e.tag[1]) for e in tree.all(*_HEADINGS)]
    found = [] if levels.count(1) == 1 and levels[0] == 1 else ["one h1 must come first"]
    jumps = [(a, b) for a, b in zip(levels, levels[1:], strict=False) if b > a + 1]
    return found + [f"h{b} follows h{a}" for a, b in jumps]


def _tables(tree: Tree) -> list[str]:
    found = [f"{e} has no scope" for e in tree.all("th") if e.attributes.get("scope") not in ("row", "col")]
    for table in tree.all("table"):
        rows = [e for e in table.inside if e.tag == "tr"]
        headed = [any(cell.attributes.get("scope") for cell in row.inside if cell.tag == "th") for row in rows]
        found += [] if all(headed) else [f"{table} has rows without a header"]
    return found


def _landmarks(tree: Tree) -> list[str]:
    found = [f"{tag} must stand once" for tag in ("main", "nav", "title") if len(tree.all(tag)) != 1]
    return found + ([] if tree.all("html")[0].attributes.get("lang") else ["the language is not said"])


def colors(css: str) -> dict[str, tuple[str, str]]:
    """Return each colour variable as (light, dark)."""
    found = re.findall(r"--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", css)
    return {name: (light, dark) for name, light, dark in found}


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, 1 to 21. Source: WCAG 2.2, contrast ratio."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
