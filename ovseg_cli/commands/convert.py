"""`ovseg convert CHECKPOINT`: an official checkpoint of the papers becomes a run folder."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ovseg_cli.commands import options

METHODS = ("maft", "freeseg", "zegformer", "zsseg", "zegclip", "tagclip", "pixelclip")


def convert(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="The file: .pt, .pth or .safetensors; no code in it is run.")
    ],
    method: Annotated[
        str,
        typer.Option(
            "--method",
            "-m",
            metavar="METHOD",
            help=f"Whose checkpoint it is: {', '.join(METHODS)}.",
            autocompletion=lambda incomplete: [name for name in METHODS if name.startswith(incomplete)],
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "-d",
            metavar="NAME[:CLASS_SPLIT]",
            help="What it was trained on, so that `eval` knows which classes it has seen; `coco-stuff:none` for all.",
            autocompletion=options.complete_data,
        ),
    ] = None,
    unseen: options.Unseen = None,
    text_features: Annotated[
        str | None,
        typer.Option(
            "--text-features",
            metavar="FILE[:KEY]",
            help="Text features that came with it, .npy or .npz:KEY; each row must be nearest to its own class name.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="What no checkpoint holds, TOML: settings of the method, tables clip, generator and host, templates.",
        ),
    ] = None,
    set_: options.Set = None,
    clip: options.Clip = None,
    pretrained: options.Pretrained = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the run; default: a new one below the runs.")
    ] = None,
    data_root: options.DataRoot = None,
    runs: options.Runs = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Turn an official checkpoint into a run folder; every entry of it is loaded, ignored for a reason, or refused.

    [dim]ovseg convert MAFT_Vitb.pt --method maft --data coco-stuff:none[/dim]
    [dim]ovseg convert zegformer.pth --method zegformer --data voc:15-5 --dry-run[/dim]
    [dim]ovseg convert coco.pth --method zegclip --data coco-stuff --text-features coco_multi.npy[/dim]
    [dim]ovseg convert pixelclip_vit_base.pth --method pixelclip --clip ViT-B-16[/dim]
    """
    from ovseg_cli.commands import console, views
    from ovseg_cli.core.errors import unknown_name
    from ovseg_cli.core.runtime import folders

    if method not in METHODS:
        raise unknown_name("method to convert", method, METHODS)
    settings: dict[str, Any] = options.merged(options.read_config(config), options.parse_settings(set_))
    places = folders(data_root, runs)

    from ovseg_cli.core.conversion.request import ConvertRequest
    from ovseg_cli.core.conversion.run_folder import write_run
    from ovseg_cli.core.conversion.session import convert as convert_checkpoint

    request = ConvertRequest(checkpoint, method, settings, data, unseen, clip, pretrained, out, text_features)
    done = convert_checkpoint(request, places, console.TerminalReporter())
    run = None if dry_run else write_run(done, request, places)
    if json:
        console.print_json(done.document(run))
        return
    from ovseg_cli.core.conversion.account import account

    for table in account(done, run):
        views.show_table(table)
