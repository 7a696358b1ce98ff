"""`ovseg show NAME`: a method's or generator's settings, a data set's protocol, a CLIP's recipe, a run."""

from typing import Annotated

import typer

from ovseg_cli.commands import options


def _complete(incomplete: str) -> list[str]:
    from ovseg_cli.core import registry

    names = [*registry.METHODS, *registry.PROPOSALS, *registry.TRAINERS, *options.complete_data(incomplete)]
    return [name for name in names if name.startswith(incomplete)]


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A method, a generator of proposals, a data set, `toy-clip`, or a run folder.",
            autocompletion=_complete,
        ),
    ],
    data_root: options.DataRoot = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Explain a method or a generator (paper, every setting with its source), or a data set (classes, splits, rules).

    [dim]ovseg show maskclip[/dim]
    [dim]ovseg show coco-stuff[/dim]
    """
    from ovseg_cli.commands import console, views
    from ovseg_cli.core import explanation
    from ovseg_cli.core.runtime import folders

    document = explanation.explain(name, folders(data_root))
    if json:
        console.print_json(document.record())
    else:
        views.show_explanation(document)
