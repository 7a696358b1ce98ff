"""`ovseg show NAME`: a method's or generator's settings, a data set's protocol, a CLIP, a run, a class list."""

from typing import TYPE_CHECKING, Annotated

import typer

from ovseg_cli.commands import options

if TYPE_CHECKING:
    from ovseg_cli.core.runtime import Folders

VOCABULARY = "vocabulary"


def _complete(incomplete: str) -> list[str]:
    from ovseg_cli.core import registry

    names = [VOCABULARY, *registry.METHODS, *registry.PROPOSALS, *registry.TRAINERS, *options.complete_data(incomplete)]
    return [name for name in names if name.startswith(incomplete)]


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A method, a generator of proposals, a data set, `toy-clip`, or a run folder; or `vocabulary`.",
            autocompletion=_complete,
        ),
    ],
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="CLASSES",
            help="After `vocabulary`: a data set, a file of names, names with commas, or a run folder.",
            autocompletion=options.complete_data,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD|RUN",
            help="With `vocabulary`: whose text features are compared; default: the run's, else the data set's CLIP.",
            autocompletion=options.complete_model,
        ),
    ] = None,
    clip: options.Clip = None,
    pretrained: options.Pretrained = None,
    names: Annotated[
        str | None, typer.Option(metavar="VARIANT", help="With `vocabulary`: class names as a paper writes them.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="CLASSES",
            help="With `vocabulary`: classes that training saw; default: the run's, else those of the class split.",
        ),
    ] = None,
    alike: Annotated[
        float | None,
        typer.Option(
            metavar="COSINE",
            help="With `vocabulary`: from which cosine on names are alike; default: as near as the list's names and "
            "their own plurals.",
        ),
    ] = None,
    data_root: options.DataRoot = None,
    runs: options.Runs = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Explain a method or a generator (paper, every setting with its source), or a data set (classes, splits, rules).

    `ovseg show vocabulary CLASSES` looks a class list over: names that are one name, that take the pixels of others,
    that a text model reads badly, that training has seen. Of a run it gives the mIoU over truly novel classes too.
    It ends with exit code 2 where `ovseg predict` would refuse the list.

    [dim]ovseg show maskclip[/dim]
    [dim]ovseg show coco-stuff[/dim]
    [dim]ovseg show vocabulary "cup, cups, sofa/couch, thing" --clip ViT-B-16 --against coco-stuff[/dim]
    [dim]ovseg show vocabulary runs/maft-toy-…[/dim]
    """
    from ovseg_cli.commands import console, views
    from ovseg_cli.core import explanation
    from ovseg_cli.core.runtime import folders

    asked = {"--model": model, "--clip": clip, "--pretrained": pretrained, "--names": names, "--against": against}
    if name == VOCABULARY:
        _show_vocabulary(what, {**asked, "--alike": alike}, folders(data_root, runs), json)
        return
    _refuse(what, {**asked, "--alike": alike})
    document = explanation.explain(name, folders(data_root, runs))
    if json:
        console.print_json(document.record())
    else:
        views.show_explanation(document)


def _show_vocabulary(what: str | None, asked: dict, places: "Folders", json: bool) -> None:
    from ovseg_cli.commands import console, views
    from ovseg_cli.core.errors import UsageError
    from ovseg_cli.core.vocabulary.class_list import FORMS
    from ovseg_cli.core.vocabulary.job import LintRequest
    from ovseg_cli.core.vocabulary.lint import lint

    if what is None:
        raise UsageError("show vocabulary: which classes?", f"Name {FORMS}.")
    request = LintRequest(what, **{key.removeprefix("--"): value for key, value in asked.items()})
    report = lint(request, places, console.TerminalReporter())
    if json:
        console.print_json(report.record())
    else:
        views.show_explanation(report.explanation())
    if report.is_refused:
        raise typer.Exit(2)


def _refuse(what: str | None, asked: dict) -> None:
    """No argument or option stands there without effect."""
    from ovseg_cli.core.errors import UsageError

    if what is not None:
        raise UsageError(f"show takes one name, '{what}' is one more.", f"For its class names: show vocabulary {what}")
    for option, value in asked.items():
        if value is not None:
            raise UsageError(f"{option} belongs to `ovseg show vocabulary`.", "Leave it out.")
