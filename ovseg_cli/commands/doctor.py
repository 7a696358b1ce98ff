"""`ovseg doctor`: environment, devices, disk, data and weights found, and what to do about each lack."""

from ovseg_cli.commands import options


def doctor(
    data_root: options.DataRoot = None,
    runs: options.Runs = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Look at the machine, the folders and the weights, and say what to do about each lack.

    [dim]ovseg doctor[/dim]
    """
    import typer

    from ovseg_cli.commands import console, views
    from ovseg_cli.core import diagnosis
    from ovseg_cli.core.runtime import folders

    checks = diagnosis.examine(folders(data_root, runs))
    if json:
        console.print_json({"schema": 1, "checks": [check.record() for check in checks]})
    else:
        views.show_checks(checks)
    if any(check.status == "broken" for check in checks):
        raise typer.Exit(4)
