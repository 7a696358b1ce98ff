"""The command `ovseg`: adds the commands, and turns what goes wrong into one panel and an exit code.

Nothing here or in the modules it imports loads torch: help, completion and usage errors must answer at once.
"""

import os
import signal
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ovseg_cli import __version__
from ovseg_cli.commands import console
from ovseg_cli.core.errors import OvsegError, Terminated


class OvsegGroup(TyperGroup):
    """Runs a command and answers every failure with one sentence and the exit code of the contract."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Keep the order of work, not the alphabet."""
        return list(self.commands)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Look at the raw words first: how errors are written, and whether help may be coloured."""
        console.errors_as_json = "--json" in args
        if not sys.stdout.isatty() and {"GITHUB_ACTIONS", "FORCE_COLOR", "PY_COLORS"} & set(os.environ):
            from typer import rich_utils

            rich_utils.FORCE_TERMINAL = False  # typer would colour help for these variables, without a terminal too
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; map failures to exit codes 1 to 5, 130 and 143."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except OvsegError as error:
            _answer("Error", error.message, error.mend, error.exit_code, error)
        except KeyboardInterrupt as error:
            _answer("Interrupted", "stopped by Ctrl-C; finished work is kept.", _how_to_go_on(ctx, error), 130, error)
        except Terminated as error:
            _answer("Terminated", "stopped by SIGTERM; finished work is kept.", _how_to_go_on(ctx, error), 143, error)
        except BrokenPipeError:
            _leave_quietly()
        except Exception as error:
            if hasattr(error, "format_message"):
                _usage_failure(error, ctx)
            _unexpected(error)


def _how_to_go_on(ctx: Any, stop: BaseException) -> str:
    """A run of training is begun or gone on with on purpose; all other work continues by itself.

    Work that knows better has added a note to what stopped it.
    """
    if notes := getattr(stop, "__notes__", ()):
        return str(notes[-1])
    suffix = " with --resume added" if ctx.invoked_subcommand == "train" else ""
    return f"To go on, type the same command again{suffix}."


def _usage_failure(error: Any, ctx: Any) -> None:
    """Show a usage error of the command line itself (unknown option, wrong choice); exit code 2."""
    where = getattr(error, "ctx", None) or ctx
    message = error.format_message().replace(": Value error, ", ": ")
    code = int(getattr(error, "exit_code", 2))
    mend = f"Try '{where.command_path} --help'."
    _tell("Error", message + _nearest_choice(message), mend, code, error)
    raise typer.Exit(code)


def _nearest_choice(message: str) -> str:
    """Offer the nearest of the choices that a message lists."""
    from ovseg_cli.core.errors import nearest

    wrong, found, choices = message.partition(" is not one of ")
    if not found:
        return ""
    hit = nearest(wrong.rpartition(": ")[2].strip("'"), [c.strip(" '.") for c in choices.split(",")])
    return f" Did you mean '{hit}'?" if hit else ""


def _unexpected(error: Exception) -> None:
    """Answer a failure that nobody foresaw: a sentence, and the traceback only on demand."""
    if isinstance(error, MemoryError):
        message, code = "the machine ran out of memory.", 4
    elif isinstance(error, OSError):
        message, code = f"{error.filename or 'a file'}: {error.strerror or error}.", 4
    elif type(error).__name__ == "OutOfMemoryError":
        message, code = "the GPU ran out of memory. Lower --set windows_per_batch, or use --gpus 0.", 4
    else:
        message, code = f"unexpected failure, {type(error).__name__}: {error}", 1
    mend = None if console.debug else "Run it again with --debug for the traceback."
    _answer("Error", message, mend, code, error)


def _answer(title: str, message: str, mend: str | None, code: int, error: BaseException) -> None:
    """Show a failure and leave."""
    _tell(title, message, mend, code, error)
    if console.debug:
        import traceback

        traceback.print_exception(error)
    raise typer.Exit(code) from None


def _tell(title: str, message: str, mend: str | None, code: int, error: BaseException) -> None:
    """Show a failure; one process of several lets the one that started it show it, once for all."""
    from ovseg_cli.core.training import processes

    if not processes.record_failure(message, mend, code, error):
        console.show_failure(title, message, mend, code)


def _leave_quietly() -> None:
    """The reader of our output went away (`| head`): that is no failure of ours."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(0)


EXAMPLES = (
    "ovseg demo",
    "ovseg doctor",
    "ovseg prepare camvid --source CamVid",
    "ovseg propose superpixels --data toy --subset val",
    "ovseg train toy-clip --seed 1",
    "ovseg eval maskclip --data toy --split unseen",
    'ovseg predict maskclip photos/ --classes "cat, sofa/couch, wall"',
    "ovseg report runs/a runs/b --baseline runs/a",
    "ovseg convert MAFT_Vitb.pt --method maft --data coco-stuff:none",
    "ovseg list datasets",
    "ovseg show maskclip",
)

app = typer.Typer(
    name="ovseg",
    cls=OvsegGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Prepare data, train, score and compare [bold]open-vocabulary segmentation[/bold] methods on one shared core.",
    epilog="[bold]Examples, in the order of work[/bold]\n\n" + "\n\n".join(EXAMPLES),
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"ovseg {__version__}")
        raise typer.Exit()


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Stand above all commands."""


def _add_commands() -> None:
    from ovseg_cli.commands import (
        convert,
        demo,
        doctor,
        evaluate,
        listing,
        predict,
        prepare,
        propose,
        report,
        show,
        train,
    )

    start, work, look = "Start here", "Work, in this order", "Look"
    app.command("demo", rich_help_panel=start)(demo.demo)
    app.command("doctor", rich_help_panel=start)(doctor.doctor)
    app.command("prepare", rich_help_panel=work)(prepare.prepare)
    app.command("propose", rich_help_panel=work)(propose.propose)
    app.command("train", rich_help_panel=work)(train.train)
    app.command("eval", rich_help_panel=work)(evaluate.evaluate)
    app.command("predict", rich_help_panel=work)(predict.predict)
    app.command("convert", rich_help_panel=work)(convert.convert)
    app.command("report", rich_help_panel=work)(report.report)
    app.command("list", rich_help_panel=look)(listing.list_)
    app.command("show", rich_help_panel=look)(show.show)


_add_commands()


def _on_sigterm(signum: int, frame: Any) -> None:
    raise Terminated


def main() -> None:
    """Entry point of the console script."""
    from ovseg_cli.core import runtime

    signal.signal(signal.SIGTERM, _on_sigterm)
    if not runtime.is_main():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # several processes print their results once
    app(prog_name="ovseg")


if __name__ == "__main__":
    main()
