"""What one name means: a method, a generator of proposals or a trainer with its settings, a data set, or a run."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg_cli.core import registry
from ovseg_cli.core.catalogue import make_table
from ovseg_cli.core.errors import OvsegError, unknown_name
from ovseg_cli.core.report.cells import Column, Table
from ovseg_cli.core.runs import CONFIG, open_run
from ovseg_cli.core.settings_tables import SETTING_COLUMNS, method_tables, run_tables
from ovseg_cli.core.training.starts import caveats_of

if TYPE_CHECKING:
    from ovseg_cli.core.data.specs import ClassSplit, Spec
    from ovseg_cli.core.runtime import Folders


@dataclass(frozen=True)
class Explanation:
    """What `ovseg show NAME` prints.

    Attributes:
        name: As typed on the command line.
        title: As printed in papers.
        facts: Label and text, in order.
        tables: Settings, class splits, classes, …
    """

    name: str
    title: str
    facts: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...] = ()

    def record(self) -> dict[str, Any]:
        """The explanation as plain data."""
        tables = [{"title": t.title, "rows": t.records(), "notes": list(t.notes)} for t in self.tables]
        facts = [{"label": label, "text": text} for label, text in self.facts]
        return {"schema": 1, "name": self.name, "title": self.title, "facts": facts, "tables": tables}


def explain(name: str, places: "Folders") -> Explanation:
    """Explain a method, a generator of proposals, a trainer, a data set or a run folder.

    Args:
        name: What was typed; a data set may carry its class split, `NAME:CLASS_SPLIT`.
        places: Where the user's own data sets lie, once they are prepared.

    Raises:
        UsageError: The name is none of them; the nearest is offered.
    """
    from ovseg_cli.core.data.find import find_data, own_names
    from ovseg_cli.core.data.specs import aliases, spec_names

    if name in registry.METHODS:
        return _explain_method(name)
    if name in registry.PROPOSALS:
        return _explain_generator(name)
    if name in registry.TRAINERS:
        return _explain_trainer(name)
    data = [*spec_names(), *aliases(), *own_names(places)]
    if "/" in name and (Path(name) / CONFIG).is_file():
        return _explain_run(name)
    if name.partition(":")[0] in data or ".toml" in name or "/" in name:
        choice = find_data(name, None, places)
        return _explain_data(choice.spec, choice.split)
    raise unknown_name("name", name, [*registry.METHODS, *registry.PROPOSALS, *registry.TRAINERS, *data])


def _explain_method(name: str) -> Explanation:
    method = registry.METHODS[name].load()
    facts = [("paper", method.paper), ("trained", method.trains)]
    if method.name_variants:
        facts.append(("class names", f"{' or '.join(method.name_variants)}, where a data set has them (--names)"))
    tables = method_tables(method)
    from ovseg_cli.core.overhead import MEETING, overhead_table

    if name in MEETING:
        facts.append(("vocabulary", MEETING[name]))
        tables.append(overhead_table())
    facts.append(("about", _docstring_of(method)))
    return Explanation(name, method.title, tuple(facts), tuple(tables))


def _explain_run(name: str) -> Explanation:
    run = open_run(Path(name))
    names = run.config.get("vocabulary", {}).get("training_names")
    entry = registry.METHODS.get(run.method) or registry.TRAINERS.get(run.method)
    facts = [
        ("method", run.method),
        ("made", f"{run.created} by ovseg {run.config['run'].get('version', '?')}: {run.config['run'].get('command')}"),
        ("data", str(run.config["run"]["data"]) or "not said"),
        ("trained on", "not said" if names is None else f"{len(names)} names" if names else "no labels"),
        ("finished", "yes" if run.is_finished else "no"),
        ("results", ", ".join(path.stem for path in run.result_files()) or "none"),
    ]
    if run.method in registry.METHODS:
        facts += [("mind", text) for text in caveats_of(registry.METHODS[run.method].load(), run.config)]
    return Explanation(name, entry.title if entry else run.method, tuple(facts), tuple(run_tables(run)))


def _explain_generator(name: str) -> Explanation:
    generator = registry.PROPOSALS[name].load()
    fields = generator.Config.model_fields.items()
    rows = [(key, str(f.default), generator.sources.get(key, "ours"), f.description or "") for key, f in fields]
    wants = {
        "labels": generator.needs_labels,
        "weights": generator.needs_weights,
        "a data set with masks of its own": generator.reads_originals,
    }
    needs = [word for word, is_so in wants.items() if is_so]
    facts = (
        ("source", generator.source),
        ("needs", " and ".join(needs) or "nothing but pictures"),
        ("about", _docstring_of(generator)),
    )
    table = make_table("Settings (--set key=value)", SETTING_COLUMNS, rows)
    return Explanation(name, generator.title, facts, (table,))


def _docstring_of(item: Any) -> str:
    """The module docstring of a class, after its first line: paper, what is trained, where paper and code disagree."""
    import inspect
    import sys

    return joined_lines(inspect.cleandoc(sys.modules[item.__module__].__doc__ or ""))


ITEM = re.compile(r"\s*([-*]|\d+\.) ")
"""Begin of an item of a list: a dash, a star, or a number."""


def joined_lines(text: str) -> str:
    """Join the lines of each paragraph and of each list item; indented blocks stay as they are."""
    lines = [""]
    for line in text.splitlines():
        is_item, in_item = (bool(ITEM.match(text)) for text in (line, lines[-1]))
        begins = not line.strip() or not lines[-1] or is_item or (line.startswith(" ") and not in_item)
        follows_block = lines[-1].startswith(" ") and not in_item
        if begins or follows_block or (in_item and not line.startswith(" ")):
            lines.append(line)
        else:
            lines[-1] += f" {line.strip()}"
    return "\n".join(lines[1:])


def _explain_trainer(name: str) -> Explanation:
    entry = registry.TRAINERS[name]
    fields = entry.load_settings().model_fields
    rows = [(key, str(f.default), "ours", f.description or "") for key, f in fields.items()]
    facts: list[tuple[str, str]] = [("source", entry.paper), ("trained", entry.trained)]
    try:
        from ovseg_cli.core.clip.model import load_clip

        facts += [(key, str(value)) for key, value in load_clip(name).recipe.items()]
    except OvsegError as error:
        facts.append(("shipped weights", str(error)))
    return Explanation(
        name, entry.title, tuple(facts), (make_table("Settings (--set key=value)", SETTING_COLUMNS, rows),)
    )


def _explain_data(spec: "Spec", split: "ClassSplit | None") -> Explanation:
    from ovseg_cli.core.data.download_text import download_fact
    from ovseg_cli.core.data.protocol import label_facts, split_facts

    facts = [("task", spec.task), ("classes", str(spec.num_classes))]
    facts += label_facts(spec)
    for subset, part in spec.subsets.items():
        count = "no official count" if part.images is None else f"{part.images:,} images"
        facts.append((f"subset {subset}", f"{count}{'; ' + part.note if part.note else ''}"))
    facts += split_facts(spec)
    if spec.license:
        facts.append(("license", f"annotations: {spec.license.annotations}; images: {spec.license.images}"))
    if spec.preset.templates:
        facts.append(("templates", " | ".join(spec.preset.templates)))
    facts += [("download", download_fact(part)) for part in spec.downloads]
    facts += [("papers disagree", text) for text in spec.disagreements]
    facts += [("note", text) for text in spec.notes]
    return Explanation(spec.name, spec.title, tuple(facts), tuple(_data_tables(spec, split)))


def _data_tables(spec: "Spec", split: "ClassSplit | None") -> Iterable[Table]:
    if spec.class_splits:
        yield _split_table(spec)
    if spec.name_variants:
        columns = (Column("names", "--names"), Column("source", "source"), Column("note", "note"))
        variants = [(v.id, v.source, v.note) for v in spec.name_variants]
        yield make_table("Class names as papers write them", columns, variants)
    if spec.layouts:
        yield _layout_table(spec)
    if spec.classes:
        yield _class_table(spec, split)


def _split_table(spec: "Spec") -> Table:
    columns = (
        Column("split", "class split"),
        Column("seen", "seen", "count"),
        Column("unseen", "unseen", "count"),
        Column("names", "unseen classes"),
        Column("sources", "sources"),
    )
    rows = []
    for s in spec.class_splits:
        names = ", ".join(s.unseen[:24]) + (f" and {len(s.unseen) - 24} more" if len(s.unseen) > 24 else "")
        mark = " *" if s.id == spec.default_split else ""
        rows.append((s.id + mark, len(spec.seen_ids(s)), len(s.unseen), names, ", ".join(s.sources)))
    return make_table("Class splits", columns, rows, ("* marks the split that is taken where none is named.",))


def _layout_table(spec: "Spec") -> Table:
    columns = (
        Column("layout", "layout"),
        Column("source", "used by"),
        Column("labels", "labels below --source DIR"),
        Column("kind", "stored as"),
    )
    rows = []
    for layout in spec.layouts:
        labels = dict.fromkeys(part.labels or "none" for part in layout.subsets.values())
        rows.append((layout.id, layout.source, ", ".join(labels), spec.encoding_of(layout).kind))
    return make_table("Where files may lie (ovseg prepare finds out which)", columns, rows)


def _class_table(spec: "Spec", split: "ClassSplit | None") -> Table:
    unseen = set(spec.unseen_ids(split))
    kinds = {True: "thing", False: "stuff", None: None}
    columns = (
        Column("id", "id", "count"),
        Column("name", "class"),
        Column("kind", "kind"),
        Column("seen", "in this split"),
    )
    rows = [
        (i, ", ".join([c.name, *c.synonyms]), kinds[c.is_thing], "unseen" if i in unseen else "seen")
        for i, c in enumerate(spec.classes)
    ]
    return make_table(f"Classes ({spec.name}:{split.id})" if split else "Classes", columns, rows)
