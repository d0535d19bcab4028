"""The command ``fedali``: it knows no command itself, each package brings its own (entry points ``fedali.commands``).

An entry ``NAME.alone`` is what the command ``NAME`` does without any of the commands in it. What a package brings that is not installed here is
left out.
"""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from fedali.errors import FedaliError, MissingExtraError
from fedali.support.terminal import printable, survive
from fedali.version import __version__
from fedali.wire.proxies import never_for_loopback

_HELP = """Federated learning of personalised models: simulate, deploy, federate.

\b
Examples:
  fedali simulate digits            compare methods on 20 clients, nothing to download
  fedali compare digits --seeds 5   what the differences between methods are worth
  fedali data my_data.csv           what FedAli makes of your own data
  fedali scenarios                  what can be simulated
  fedali simulate -h                every option, with examples
  fedali export RUN --key site.key  a bundle for devices
"""


def main() -> None:
    """Run the command line; errors a user can mend are one line, with exit code 2 (bad input) or 1."""
    if sys.argv[1:] == ["--version"]:
        print(f"fedali {__version__}")  # noqa: T201  before anything heavy is imported
        return
    survive()
    never_for_loopback()
    try:
        sys.exit(_app()(standalone_mode=False) or 0)
    except FedaliError as error:
        _fail(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if not module or module.startswith("fedali"):
            raise
        extra = sys.argv[1] if sys.argv[1:2] in (["site"], ["server"]) else "sim"
        _fail(str(MissingExtraError(module, extra)), MissingExtraError.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        _usage(error)


def _app() -> Any:
    try:
        import typer
        import typer.core
    except ImportError:
        raise MissingExtraError("typer", "sim") from None
    typer.core.HAS_RICH = False  # else brackets are escaped for rich, which does not print them here
    app = typer.Typer(
        help=_HELP,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )

    @app.callback(invoke_without_command=True)
    def root(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
        if version:
            typer.echo(f"fedali {__version__}")
            raise typer.Exit

    groups: dict[str, typer.Typer] = {}
    for command in sorted(entry_points(group="fedali.commands"), key=lambda entry: entry.name):
        loaded = _load(command)
        name, _, alone = command.name.partition(".")
        if alone and loaded is not None and name in groups:
            groups[name].callback(invoke_without_command=True)(loaded)
        elif isinstance(loaded, typer.Typer):  # a command with commands of its own
            app.add_typer(loaded, name=name)
            groups[name] = loaded
        elif loaded is not None:
            app.command(name)(loaded)
    return _readable(typer.main.get_command(app))


def _load(command: EntryPoint) -> Any:
    """What an entry point names; None where its package is not here."""
    try:
        return command.load()
    except ModuleNotFoundError as error:
        if error.name != command.module.partition(".")[0]:
            raise
        return None


def _readable(command: Any) -> Any:
    """The command with its examples as they were written: docstrings spell click's mark for that with two characters."""
    command.help = (command.help or "").replace("\\b", "\b")
    for inner in getattr(command, "commands", {}).values():
        _readable(inner)
    return command


def _usage(error: Exception) -> None:
    """Wrong words on the command line in one line; anything else is a fault of ours and keeps its traceback."""
    import click

    if isinstance(error, click.exceptions.Abort):
        sys.exit(130)
    if not isinstance(error, click.ClickException):
        raise error
    where = getattr(getattr(error, "ctx", None), "command_path", "fedali")
    message = error.format_message().replace("\n", " ").rstrip(".")
    if message:
        _fail(f"{message}. Try: {where} -h", 2)
    sys.exit(error.exit_code)


def _fail(message: str, code: int) -> None:
    print(printable(f"fedali: {message}"), file=sys.stderr)  # noqa: T201
    sys.exit(code)
