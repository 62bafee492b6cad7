"""The command ``distgrad``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

import distgrad
from distgrad import distributed
from distgrad.distributed import failure
from distgrad.errors import ConfigError


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the command line and runs what it asks for; ends all ranks when one fails.

    Args:
        argv: the arguments, those of the process by default.
    """
    with failure.guard():
        _run(sys.argv[1:] if argv is None else list(argv))


class _Parser(argparse.ArgumentParser):
    """Fails as everything else does: with one message, from one rank."""

    def error(self, message: str) -> NoReturn:
        """What argparse calls for a command line that it cannot read."""
        raise ConfigError(f"{message}\n{self.format_usage().rstrip()}")


def _run(argv: list[str]) -> None:
    parser = _Parser(
        prog="distgrad",
        description="Distributed data-parallel training in NumPy. Start it under mpirun to use several processes: "
        "mpirun -n 4 distgrad finetune CONFIG",
    )
    parser.add_argument("--version", action="version", version=f"distgrad {distgrad.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    # A command's modules are imported when it is chosen: `distgrad --help` must not wait for all of them.
    finetune_parser = commands.add_parser(
        "finetune",
        help="finetune a pretrained model on a folder of photos",
        usage="distgrad finetune [-h] CONFIG [--resume | --overwrite] [--section.key VALUE ...]",
        description="Finetunes as CONFIG says. --section.key VALUE overrides a setting, as in --optim.lr 0.01; "
        "launch/settings.py lists all of them.",
        allow_abbrev=False,
    )
    evaluate_parser = commands.add_parser("evaluate", help="evaluate a run's model on a folder of photos")
    predict_parser = commands.add_parser("predict", help="classify photos with a run's model")

    chosen = next((word for word in argv if not word.startswith("-")), None)
    if chosen is not None:
        distributed.init()  # first of all: a rank can end the others only once it has joined them
    if chosen == "finetune":
        from . import finetune

        finetune.add_arguments(finetune_parser)
        arguments, overrides = parser.parse_known_args(argv)
        finetune.command(arguments, overrides)
    elif chosen == "evaluate":
        from . import evaluate

        evaluate.add_arguments(evaluate_parser)
        evaluate.command(parser.parse_args(argv))
    elif chosen == "predict":
        from . import predict

        predict.add_arguments(predict_parser)
        predict.command(parser.parse_args(argv))
    else:
        parser.parse_args(argv)


if __name__ == "__main__":
    main()
