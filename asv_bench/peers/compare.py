"""fastconv beside PyTorch and ONNX Runtime on the layers of real networks, in one process.

Contenders alternate in blocks of calls; results are compared number by number, and a wrong one ends the run. A ratio
is the best peer's time divided by fastconv's: above 1, fastconv is faster. Peers are PyTorch in both memory formats,
with and without autograd, and ONNX Runtime (float32 forward passes), on as many threads. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

import convolutions
import networks
import onnxruntime
import other_layers
import startup
import torch
from chart import draw
from contest import LAYOUTS, Entry, Row, Selection, WrongResultError, play
from layers import matching
from machine import Facts, machine, print_machine
from measure import QUICK, Effort, warned_of_others
from ours import PASSES, PREPARED
from report import DIRECTIONS, Printer, columns_of, groups_of, print_markdown, print_summary, summarise

from fastconv import conv2d_algorithms, runtime
from fastconv.plan import CLASSES


def everything() -> list[Entry]:
    return [*convolutions.entries(), *other_layers.entries(), *networks.entries()]


def chosen(options: argparse.Namespace, parser: argparse.ArgumentParser) -> list[Entry]:
    """The layers that the options ask for."""
    known = everything()
    groups = matching({entry.group for entry in known}, options.group)
    names = matching({entry.layer for entry in known}, options.layer)
    found = [entry for entry in known if entry.group in groups and entry.layer in names]
    if not found:
        listed = [f"{group}: {', '.join(e.layer for e in known if e.group == group)}" for group in groups_of(known)]
        parser.error("\n".join(["no such group and layer; there are", *listed]))
    return found


def run(entries: Sequence[Entry], options: argparse.Namespace, facts: Facts, rows: list[Row]) -> None:
    """Time the layers, printing rows and adding them to `rows` as they come."""
    effort = QUICK if options.quick else Effort(rounds=options.rounds)
    for dtype in options.dtype:
        selection = Selection(tuple(options.passes), dtype, tuple(options.layout), tuple(options.algorithm))
        printer = Printer(dtype, selection.columns, facts)
        for entry in entries:
            for contest in entry.contests(selection):
                rows.append(play(contest, effort))
                printer.print_row(rows[-1])


def read(paths: Sequence[str]) -> tuple[Facts, list[Row]]:
    """The rows of earlier runs, in parts perhaps: later ones replace earlier ones. The first file's machine's facts."""
    documents = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            documents.append(json.load(file))
    read_rows = (Row.from_json(values) for document in documents for values in document["rows"])
    latest = {(row.dtype, row.layer, row.direction): row for row in read_rows}
    places = {entry.layer: place for place, entry in enumerate(everything())}
    rows = sorted(latest.values(), key=lambda row: (places.get(row.layer, -1), DIRECTIONS.index(row.direction)))
    facts = documents[0]["machine"]
    for dtype in dict.fromkeys(row.dtype for row in rows):
        some = [row for row in rows if row.dtype == dtype]
        printer = Printer(dtype, columns_of(some), facts)
        for row in some:
            printer.print_row(row)
    return facts, rows


def conclude(facts: Facts, rows: Sequence[Row], options: argparse.Namespace) -> None:
    """Means, Markdown, JSON and chart; the chart shows the first dtype and configuration."""
    summaries = {}
    for dtype in dict.fromkeys(row.dtype for row in rows):
        some = [row for row in rows if row.dtype == dtype]
        print_summary(some)
        if options.markdown:
            print_markdown(some)
        summaries[dtype] = summarise(some)
    if options.json:
        document = {"machine": facts, "rows": [row.to_json() for row in rows], "geometric means": summaries}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
    if options.chart and rows:
        some = [row for row in rows if row.dtype == rows[0].dtype]
        column = columns_of(some)[0]
        title = (
            f"fastconv {column}, {rows[0].dtype}, {facts['vector unit']}, {facts['threads']} threads\n"
            f"against the best of PyTorch {facts['torch']} and ONNX Runtime {facts['onnxruntime']}"
        )
        draw(some, column, title, options.chart)


def parse() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    several = {"nargs": "+", "metavar": "NAME"}
    parser.add_argument("--group", default=[""], **several, help="only groups whose name contains one of these")
    parser.add_argument("--layer", default=[""], **several, help="only layers whose name contains one of these")
    parser.add_argument("--pass", dest="passes", nargs="+", choices=PASSES, default=PASSES, help="default: all")
    parser.add_argument("--dtype", nargs="+", choices=("float32", "float64"), default=["float32"])
    parser.add_argument("--layout", nargs="+", choices=LAYOUTS, default=["NCHW"], help="of fastconv; default: NCHW")
    parser.add_argument(
        "--algorithm", nargs="+", choices=(*CLASSES, PREPARED, *conv2d_algorithms()), default=["auto"],
        help=f"default: auto; {PREPARED} is auto with the weights packed before forward is timed",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="two short blocks each: for a first look")
    parser.add_argument("--rounds", type=int, default=Effort.rounds, help=f"blocks each (default: {Effort.rounds})")
    parser.add_argument("--json", metavar="FILE", help="where figures go (default: peers.json)")
    parser.add_argument(
        "--chart", metavar="FILE", default="peers.png", help="where the chart goes (default: peers.png)"
    )
    parser.add_argument("--markdown", action="store_true", help="also print a Markdown table")
    parser.add_argument("--read", nargs="+", metavar="FILE", help="print and draw stored figures instead of measuring")
    parser.add_argument("--overhead", action="store_true", help="time of a call on a tiny problem, instead of layers")
    parser.add_argument("--startup", action="store_true", help="import and first calls of new processes, instead")
    options = parser.parse_args()
    if options.json is None and not options.read:
        options.json = "peers.json"
    return parser, options


def main() -> int:
    parser, options = parse()
    torch.set_num_threads(runtime.get_num_threads())
    with torch.no_grad():
        if options.startup:
            startup.print_startup()
        elif options.overhead:
            with warned_of_others():
                startup.print_overhead(options.dtype[0])
        elif options.read:
            conclude(*read(options.read), options)
        else:
            entries, rows = chosen(options, parser), []
            facts = machine(options.dtype, (torch, onnxruntime))
            print_machine(facts)
            with warned_of_others():
                try:
                    run(entries, options, facts, rows)
                except WrongResultError as error:
                    print(f"wrong result: {error}", file=sys.stderr)
                    return 1
                except KeyboardInterrupt:
                    print("interrupted: figures so far")
            conclude(facts, rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
