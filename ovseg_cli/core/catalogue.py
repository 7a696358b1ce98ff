"""What there is, as tables: data sets, methods, generators of proposals and what they made, backbones, runs."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ovseg_cli.core import registry
from ovseg_cli.core.report.cells import Cell, Column, Table, Value
from ovseg_cli.core.runtime import Folders

if TYPE_CHECKING:
    from ovseg_cli.core.data.specs import Spec
    from ovseg_cli.core.proposals.store import ProposalStore


def make_table(
    title: str, columns: Sequence[Column], rows: Iterable[Sequence[Value]], notes: Sequence[str] = ()
) -> Table:
    """Make a table of plain values."""
    return Table(title, tuple(columns), tuple(tuple(Cell(value) for value in row) for row in rows), tuple(notes))


def datasets(folders: Folders) -> Table:
    """Every label space, the user's own prepared ones too: classes, class splits, whether it is prepared here."""
    from ovseg_cli.core.data.dataset import prepared_names
    from ovseg_cli.core.data.find import find_data
    from ovseg_cli.core.data.specs import spec_names

    shipped = spec_names()
    own = [name for name in prepared_names(folders) if name not in shipped]
    rows = [_data_row(name, find_data(name, None, folders).spec, folders) for name in (*shipped, *own)]
    columns = (
        Column("name", "name"),
        Column("title", "title"),
        Column("classes", "classes", "count"),
        Column("splits", "class splits"),
        Column("images", "images of the full release"),
        Column("prepared", "prepared here"),
    )
    return make_table("Data sets", columns, rows, ("* marks the split that is taken where none is named.",))


def _data_row(name: str, spec: "Spec", folders: Folders) -> tuple[Value, ...]:
    from ovseg_cli.core.data.dataset import describe

    splits = [s.id + ("*" if s.id == spec.default_split else "") for s in spec.class_splits]
    images = ", ".join(f"{k} {v.images:,}" for k, v in spec.subsets.items() if v.images is not None)
    here = describe(folders, name)
    counts = ", ".join(f"{subset} {count:,}" for subset, count in here.images.items())
    state = {"prepared": counts, "missing": "no"}.get(here.state, here.state)
    return (name, spec.title, spec.num_classes or None, " ".join(splits) or None, images, state)


def methods() -> Table:
    """Every method that can be scored, and every trainer."""
    columns = (
        Column("name", "name"),
        Column("title", "method"),
        Column("paper", "paper"),
        Column("trained", "trained"),
    )
    rows = [(name, e.title, e.paper, e.trained) for name, e in (registry.METHODS | registry.TRAINERS).items()]
    return make_table("Methods", columns, rows)


def proposals(folders: Folders) -> Table:
    """Every generator of mask proposals and every cache; a generator without one has a row that says so."""
    from ovseg_cli.core.proposals.caches import caches

    columns = (
        Column("generator", "generator"),
        Column("title", "masks", shown=False),
        Column("source", "source"),
        Column("data", "data"),
        Column("subset", "subset"),
        Column("images", "images", "count"),
        Column("state", "state"),
        Column("folder", "folder"),
    )
    rows: list[tuple[Value, ...]] = []
    made = list(caches(folders))
    for name, entry in registry.PROPOSALS.items():
        own = [store for store in made if store.generator == name]
        rows += [_cache_row(store, entry.title, entry.paper) for store in own]
        rows += [] if own else [(name, entry.title, entry.paper, None, None, None, "none made yet", None)]
    strange = [store for store in made if store.generator not in registry.PROPOSALS]
    rows += [_cache_row(store, store.generator, _origin(store)) for store in strange]
    notes = ("Made by `ovseg propose GENERATOR --data D --subset train|val`; settings: `ovseg show GENERATOR`.",)
    return make_table("Mask proposals", columns, rows, notes)


def _cache_row(store: "ProposalStore", title: str, source: str) -> tuple[Value, ...]:
    data, subset = (store.manifest.get(key) for key in ("data", "subset"))
    state = "complete" if store.complete else f"{len(store):,} of {store.images:,}" if store.images else "unfinished"
    return (store.generator, title, source, str(data), str(subset), len(store), state, str(store.folder))


def _origin(store: "ProposalStore") -> str:
    return "imported" if "imported" in store.manifest["settings"] else "a trained host"


def backbones() -> Table:
    """Every CLIP with dense features: the toy's, then open_clip's ViT and ConvNeXt towers with their tags."""
    import open_clip

    tags: dict[str, list[str]] = {}
    for architecture, tag in open_clip.list_pretrained():
        tags.setdefault(architecture, []).append(tag)
    rows: list[tuple[Value, ...]] = [("toy-clip", "ViT", "in the package")]
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name) or {}
        vision = config.get("vision_cfg", {})
        kind = _tower_kind(name, vision)
        if kind and name in tags:
            rows.append((name, kind, ", ".join(tags[name])))
    columns = (Column("clip", "--clip"), Column("tower", "image tower"), Column("pretrained", "--pretrained"))
    notes = ("Weights are fetched by open_clip at first use; without network give a file to --pretrained.",)
    return make_table("Backbones", columns, rows, notes)


def _tower_kind(name: str, vision: dict[str, Any]) -> str | None:
    if "timm_model_name" in vision:
        return "ConvNeXt" if "convnext" in str(vision["timm_model_name"]) else None
    return "ViT" if isinstance(vision.get("layers"), int) and "patch_size" in vision else None


def runs(folders: Folders) -> Table:
    """Every run below the runs folder, newest first."""
    from ovseg_cli.core.runs import list_runs

    columns = (
        Column("run", "run"),
        Column("method", "method"),
        Column("data", "data"),
        Column("created", "created (UTC)"),
        Column("state", "state"),
        Column("results", "results", "count"),
    )
    rows = [
        (
            str(run.path),
            run.method,
            str(run.config["run"]["data"]),
            run.created[:19].replace("T", " "),
            "finished" if run.is_finished else "not finished",
            len(run.result_files()),
        )
        for run in list_runs(folders.runs)
    ]
    notes = () if rows else ("There is none yet; `ovseg eval maskclip --data toy` makes one.",)
    return make_table(f"Runs in {folders.runs}", columns, rows, notes)
