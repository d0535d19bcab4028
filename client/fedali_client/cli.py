"""The command ``fedali-client``: a personal model on this device, without writing Python."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from fedali.errors import FedaliError
from fedali.support.terminal import printable, survive
from fedali.version import __version__
from fedali.wire.proxies import never_for_loopback

_EXAMPLES = """examples:
  fedali-client verify model.fedali --key site.pub          is this bundle what the site made?
  fedali-client fit model.fedali --data mine.csv --key site.pub
  fedali-client predict model.fedali --data new.csv         one line of JSON for each window
  sensor | fedali-client predict model.fedali               samples as JSON, one a line: {"x": [[...], ...]}
  fedali-client evaluate model.fedali --data test.csv
  fedali-client doctor model.fedali                         what can this machine do, what should I choose?
  fedali-client join KIT --data mine.csv --split            take part in a federation

What a file has to be like the bundle knows: columns by name, windows cut as in the simulation that it is from. --set says where a file
differs, by the names of a scenario: a message that ends in data.separator = ";" is mended by --set data.separator=";".
The key is needed once: the state folder (~/.fedali) remembers keys that verified a bundle.
"""


_FILES = ".csv (.csv.gz, .tsv) with a row for each moment, or .npz with x [n, ...] and y [n]"


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; errors a user can mend are one line, with exit code 2 (bad input) or 1."""
    signal.signal(signal.SIGTERM, _stop)
    survive()
    never_for_loopback()
    options = _parser().parse_args(words)
    try:
        from fedali_client import commands

        commands.COMMANDS[options.command](options)
        sys.stdout.flush()
    except FedaliError as error:
        print(printable(f"fedali-client: {error}"), file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except (
        BrokenPipeError
    ):  # the reader of our output has gone, as `head` does: nor can what is left be flushed at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(0)


def _stop(number: int, frame: Any) -> NoReturn:
    sys.exit(128 + number)  # leaves by way of `with` blocks, which save


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; try: {self.prog} -h\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fedali-client",
        description="Train and use a personal model on this device.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fedali {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    common = _Parser(add_help=False)
    common.add_argument("bundle", type=Path, metavar="BUNDLE", help="the file, for instance model.fedali")
    state = _Parser(add_help=False)
    state.add_argument(
        "--state",
        type=Path,
        default=Path("~/.fedali"),
        metavar="DIR",
        help="where this device's models are kept (default: ~/.fedali)",
    )
    common.add_argument(
        "--key", type=Path, metavar="FILE", help=".pub file of whoever made the bundle; needed once"
    )
    common.add_argument("--allow-unsigned", action="store_true", help="take a bundle that nobody signed")
    common.add_argument("--json", action="store_true", help="print data as one line of JSON")
    runs = _Parser(add_help=False)
    runs.add_argument(
        "--provider",
        default="CPUExecutionProvider",
        metavar="NAME",
        help="of onnxruntime (default: the CPU's)",
    )
    runs.add_argument(
        "--threads",
        type=_positive,
        default=1,
        metavar="N",
        help="of onnxruntime (default: 1; doctor says what is best)",
    )
    data = _Parser(add_help=False)
    data.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="FILE",
        help=f"{_FILES}, with labels",
    )
    reads = _Parser(add_help=False)
    reads.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="data.NAME=VALUE",
        help='how --data is read, where it is another file than the bundle knows, such as data.separator=";" or '
        "data.columns.label=activity",
    )
    splits = _Parser(add_help=False)
    splits.add_argument(
        "--split",
        action="store_true",
        help="--data holds everything: 56 %% of each class trains, the earliest; 14 %% and 30 %% choose and test",
    )
    learns = _Parser(add_help=False)
    learns.add_argument(
        "--epochs", type=_positive, default=5, metavar="N", help="passes over the data (default: 5)"
    )
    learns.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the order of samples (default: 0)"
    )

    def add(name: str, summary: str, *parents: _Parser, example: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            parents=[common, state, *parents],
            epilog=f"example:\n  fedali-client {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    add("info", "what a bundle is, and where this device stands with it", example="info model.fedali --json")
    add(
        "verify", "check a bundle: signature, checksums, graphs", example="verify model.fedali --key site.pub"
    )
    add(
        "fit",
        "train the personal model; interrupted, the same command goes on",
        runs,
        data,
        reads,
        splits,
        learns,
        example="fit model.fedali --data mine.csv --epochs 10",
    )
    predict = add(
        "predict",
        "classify a file, or samples from stdin as JSON lines",
        runs,
        reads,
        example="predict model.fedali --data new.csv",
    )
    predict.add_argument("--data", type=Path, metavar="FILE", help=f"{_FILES}, or .npy; without: stdin")
    add(
        "evaluate",
        "accuracy and macro-F1 of the personal model",
        runs,
        data,
        reads,
        splits,
        example="evaluate model.fedali --data test.csv --json",
    )
    observe = add(
        "observe",
        "keep samples in the bounded store, and train on what it holds",
        runs,
        reads,
        learns,
        example="observe model.fedali --data today.csv --train",
    )
    observe.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help=f'{_FILES}, with labels where they are known; without: JSON lines from stdin, {{"x": ..., "label": ...}}',
    )
    observe.add_argument(
        "--capacity",
        type=_positive,
        default=None,
        metavar="N",
        help="samples the store holds (default: 1000, or what it has)",
    )
    observe.add_argument(
        "--train", action="store_true", help="then train on every labelled sample in the store"
    )
    observe.add_argument(
        "--adapt", action="store_true", help="then move the prototypes by the samples without a label"
    )
    add("doctor", "what this machine can do with a bundle, and what to choose", example="doctor model.fedali")
    _add_join(commands, state, runs, reads, splits)
    return parser


def _add_join(commands: Any, *parents: _Parser) -> None:
    join = commands.add_parser(
        "join",
        help="take part in a federation, until it is stopped",
        description="Take part in a federation: train what its gateway asks for, on data that stay here; until it is stopped.",
        parents=parents,
        epilog="example:\n  fedali-client join kits/device-3 --data train.npz --test test.npz",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    join.add_argument(
        "kit", type=Path, metavar="KIT", help="folder that `fedali provision` made for this device"
    )
    join.add_argument("--data", type=Path, required=True, metavar="FILE", help=f"to train on: {_FILES}")
    join.add_argument(
        "--validation",
        type=Path,
        metavar="FILE",
        help="to choose models by: their accuracy on it is reported",
    )
    join.add_argument("--test", type=Path, metavar="FILE", help="their accuracy on it is reported too")
    join.add_argument("--once", action="store_true", help="end after one training that the gateway answered")
    join.add_argument("--quiet", action="store_true", help="no lines about rounds on stderr")
    join.add_argument("--json", action="store_true", help="lines of JSON on stdout, one an event")


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return value
