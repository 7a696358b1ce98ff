"""Class by class: the tables of `ovseg report --per-class`, and which of their columns are drawn as bars."""

from ovseg_cli.core.page.document import ClassChart
from ovseg_cli.core.report.cells import Table
from ovseg_cli.core.report.grouping import row_labels
from ovseg_cli.core.report.request import Comparison, by_data, class_tables, delta_tables


def charts_of(compared: Comparison) -> list[ClassChart]:
    """The classes of each data set, then what each row gains and loses against the baseline."""
    firsts = by_data([group[0] for group in compared.groups])
    charts = [
        ClassChart(_title([result.data for result in same], [result.subset for result in same]), table, _ious(table))
        for same, table in zip(firsts, class_tables(compared), strict=True)
    ]
    return [*charts, *_deltas(compared)]


def _deltas(compared: Comparison) -> list[ClassChart]:
    charts = []
    for own, rivals in compared.pairs():
        *labels, last = row_labels([*rivals, own])
        place = _title([own[0].data], [own[0].subset])
        tables = delta_tables(own, rivals, compared.view)
        charts += [
            ClassChart(f"{place}: {label} − {last}", table, deltas=("delta",))
            for label, table in zip(labels, tables, strict=True)
        ]
    return charts


def _title(data: list[str], subsets: list[str]) -> str:
    return f"{' and '.join(dict.fromkeys(data))}, {' and '.join(dict.fromkeys(subsets))}"


def _ious(table: Table) -> tuple[str, ...]:
    """Keys of the columns that hold an IoU: "IoU", or "IoU_1" and so on."""
    return tuple(column.key for column in table.columns if column.key.partition("_")[0] == "IoU")
