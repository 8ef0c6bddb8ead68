"""The demo's last step: digits through a trained network on a board, over its serial port."""

import dataclasses

import numpy as np

from boards.catalogue import BOARDS
from boards.classify import Classified, classify
from boards.host import Board
from boards.stage import Checks, Steps
from boards.virtual import VirtualBoard
from examples.digits import data
from examples.digits.evaluate import TRAINED
from gen import report
from gen.emit import emit
from gen.network import model_of
from hw.transformer import TransformerConfig
from sim.golden.transformer import network

BOARD = "icebreaker"
MODEL = TRAINED / "tiny"

DIGITS = data.CLASSES
"""Held-out originals: the first of each class."""


@dataclasses.dataclass(frozen=True)
class Wired:
    """What the report shows.

    Attributes
    ----------
    images : data.Images
    found : Classified
        What came out of the board.
    config : TransformerConfig
    beats_in, beats_out : int
        On all streams, weights included.
    baud : int
        Bits a second.
    """

    images: data.Images
    found: Classified
    config: TransformerConfig
    beats_in: int
    beats_out: int
    baud: int


def held_out() -> data.Images:
    """Return the first image of each class that nothing was trained on."""
    test = data.split()["test"]
    first = np.array([np.argmax(test.labels == label) for label in range(DIGITS)])
    return data.Images(test.pixels[first], test.labels[first])


def send(steps: Steps, check: Checks) -> Wired:
    """Send digits through the network, on the board's preset with a trace.

    Raises
    ------
    CheckFailed
        The board does not answer.
    """
    model, arrays = model_of(MODEL)
    images = held_out()
    config = TransformerConfig.preset(BOARD).replace(trace=True)
    with (
        steps(f"{BOARD}: {DIGITS} digits through a network, over its serial port, simulated from "
              "pin to pin"),
        VirtualBoard(BOARDS[BOARD], emit("transformer", config)) as there,
        Board(BOARD, there.port, "transformer", "default", config.asdict()) as board,
    ):  # fmt: skip
        found = classify(board, model, arrays, images.pixels, images.labels)
        done = board.report
        wired = Wired(images, found, config, done.beats_in, done.beats_out, board.baud)
    want, _ = network(model, {**arrays, "image": images.pixels})
    spikes = [
        want[x["name"]].swapaxes(0, 1) for x in model["layers"] if x["kind"] in ("lif", "sdsa")
    ]
    wrong = int(np.count_nonzero(found.logits != want["logits"])) + sum(
        int(np.count_nonzero(came != own))
        for came, own in zip(found.spikes.values(), spikes, strict=True)
    )
    count = found.logits.size + sum(came.size for came in found.spikes.values())
    check(f"{BOARD}, over its serial port: {count:,} spikes and logits, {wrong} differ from golden",
          wrong == 0)  # fmt: skip
    check(f"{found.right} of {DIGITS} digits are classified as labelled",
          found.right == int((want["logits"].argmax(axis=1) == images.labels).sum()))  # fmt: skip
    return wired


def section(wired: Wired) -> report.Section:
    """Return the section of the report."""
    c = wired.config
    spikes = {name: one[0] for name, one in wired.found.spikes.items()}
    answers = zip(wired.images.labels, wired.found.answers, strict=True)
    return report.Section(
        "A network over the serial port",
        f"transformer: {c.blocks} block, {c.heads} heads of {c.head_dim} channels, T = "
        f"{c.timesteps}, trained on digits and made integer, on the pins of "
        f"{BOARDS[BOARD].title}: the whole top of the board, its pads and its reset too, simulated "
        "behind a pseudo-terminal. python -m boards.host --classify talks to a board in the same "
        "way: weights are loaded, a digit goes in, its class comes out. Nothing was trained on "
        "these digits.",
        [
            report.Figure(
                report.diagram(
                    [
                        [report.Block("boards.host", ["packets, CRC-32"])],
                        [report.Block("UART", [f"{wired.baud:,} baud"], hardware=True)],
                        [report.Block("link", ["sent again if lost"], hardware=True)],
                        [report.Block("transformer", ["the emitted Verilog"], hardware=True)],
                    ],
                    [["rx, tx"], ["bytes"], ["beats"]],
                ),
                f"{len(wired.images)} digits: {wired.beats_in:,} beats there, weights among them, "
                f"{wired.beats_out:,} back.",
                860,
            ),
            report.Figure(
                report.image_figure(wired.images.pixels[0], 2, "classified"),
                "The first digit and its tokens.", 250,
            ),
            report.Figure(
                report.raster_figure(spikes, "layers"),
                f"Its spikes, layer by layer, as they came out of the board; it was taken for "
                f"{wired.found.answers[0]}. Each column is a token, each row a channel.",
            ),
            report.Table(
                ["digit", "taken for", *(f"logit {i}" for i in range(c.classes))],
                [
                    [str(label), str(answer), *(f"{x:,}" for x in logits)]
                    for (label, answer), logits in zip(answers, wired.found.logits, strict=True)
                ],
            ),
        ],
    )  # fmt: skip
