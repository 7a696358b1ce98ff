"""`ovseg predict MODEL IMAGE…`: masks for a user's own pictures and words."""

from pathlib import Path
from typing import Annotated

import typer

from ovseg_cli.commands import options


def predict(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A method, a run folder, or `latest`.", autocompletion=options.complete_model
        ),
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE…|DIR", help="Pictures, or folders of pictures.")],
    classes: Annotated[
        str | None,
        typer.Option(metavar='"cat, dog"|FILE', help="Names to look for; synonyms joined by `/`: `sofa/couch, cat`."),
    ] = None,
    data: options.Data = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of label maps, overlays and RLE JSON.")] = Path(
        "predictions"
    ),
    background: Annotated[
        float | None,
        typer.Option(
            "--background-threshold", min=0.0, max=1.0, help="Softmax probability below which a pixel is background."
        ),
    ] = None,
    templates: Annotated[str | None, typer.Option(metavar="SET", help="Prompt templates.")] = None,
    proposals: options.Proposals = None,
    clip: options.Clip = None,
    pretrained: options.Pretrained = None,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    gpus: options.Gpus = None,
    runs: options.Runs = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Label your own pictures with your own words: label map PNG, overlay with legend, RLE JSON.

    [dim]ovseg predict maskclip photos/ --classes "cat, sofa/couch, wall"[/dim]
    """
    from ovseg_cli.commands import console, views
    from ovseg_cli.core.data.find import find_data
    from ovseg_cli.core.errors import UsageError
    from ovseg_cli.core.methods.build import choose_model
    from ovseg_cli.core.prediction.class_lists import read_classes
    from ovseg_cli.core.prediction.folders import find_pictures
    from ovseg_cli.core.runtime import folders

    if classes is not None and data is not None:
        raise UsageError("--classes and --data both name the classes.", "Leave one out.")
    places = folders(runs=runs)
    settings = {**options.read_config(config), **options.parse_settings(set_)}
    if proposals is not None:
        settings["proposals"] = proposals
    chosen = find_data(data, None, places) if data else None
    spec = chosen.spec if chosen else None
    choice = choose_model(model, places.runs, spec, clip, pretrained, settings, recipe=False)
    if classes is None and chosen is None and choice.run is None:
        raise UsageError("there are no names to look for.", 'Give --classes "cat, dog", or --data NAME.')
    jobs = find_pictures(images, out)
    if chosen is None and choice.run is not None and classes is None:
        chosen = find_data(*choice.run.data, places)
    if classes is not None:
        read_classes(str(classes))  # what is wrong with them is said before anything is loaded

    from ovseg_cli.core.clip.prompts import resolve_templates
    from ovseg_cli.core.prediction.folders import predict_folder
    from ovseg_cli.core.prediction.segmenter import Segmenter
    from ovseg_cli.core.runtime import open_runtime

    sentences = resolve_templates([templates]) if templates else None
    reporter = console.TerminalReporter()
    segmenter = Segmenter.build(choice, open_runtime(gpus), places.cache, reporter)
    words = segmenter.vocabulary_of(chosen) if chosen else str(classes)
    query = segmenter.query(words, sentences, background_threshold=background)
    done = predict_folder(segmenter, jobs, query, out, reporter)
    views.show_predictions(done, out, json)
    if error := done.error():
        raise error
