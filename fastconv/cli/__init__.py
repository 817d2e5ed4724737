"""The `fastconv` command. Networks, data sets and figures are imported inside the subcommands: help is quick."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import fastconv
from fastconv.cli import predict, train, train_options
from fastconv.cli.options import CommandError, users_mistakes

FAILED, BAD_USAGE, INTERRUPTED = 1, 2, 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line instead of the whole usage."""
        self.exit(BAD_USAGE, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def info(options: argparse.Namespace) -> int:
    """Print versions, vector unit, threads and cache folder."""
    from fastconv import runtime

    runtime.show_config()
    return 0


def warmup(options: argparse.Namespace) -> int:
    """Compile the kernels of small networks into the disk cache."""
    from fastconv import runtime
    from fastconv.warmup import warmup as run

    seconds = run(float64=options.float64)
    print(f"warmed up in {seconds:.2f} s, {runtime.compile_seconds():.2f} s of them compiling")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fastconv", description="Convolution and small CNNs for NumPy, on Numba.")
    parser.add_argument("--version", action="version", version=f"fastconv {fastconv.__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(run=run)
        return sub

    sub = command("train", train.train, "train a network and save it with its history and figures")
    train_options.add_options(sub)
    sub = command("predict", predict.predict, "classify images with a saved model")
    predict.add_options(sub)
    sub = command("warmup", warmup, "compile the kernels of small networks into the disk cache")
    sub.add_argument("--float64", action="store_true", help="for float64 as well")

    command("info", info, "print versions, vector unit, threads and cache folder")
    commands.add_parser("bench", help="time convolutions on this machine (options: fastconv bench --help)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (argparse exits by itself after help and bad usage)."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if arguments[:1] == ["bench"]:
            with users_mistakes():
                from fastconv import bench
            return bench.main(arguments[1:]) or 0
        if arguments[:1] == ["train"]:
            arguments = ["train", *train.from_files(arguments[1:]), *arguments[1:]]
        options = _parser().parse_args(arguments)
        return options.run(options)
    except CommandError as error:
        print(f"fastconv: error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_USAGE
    except FloatingPointError as error:
        print(f"fastconv: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("fastconv: interrupted", file=sys.stderr)
        return INTERRUPTED
