"""The link from end to end, in a simulator, on a line where things go wrong."""

import random

import pytest

from boards.packet import CLOSED, DATA, OPEN, Packet, Status
from gen.errors import CheckFailed, UserError
from tests.boards.echo import (
    DIVISOR,
    IDENTITY,
    KINDS,
    Faults,
    Wire,
    exchange,
    garbage,
    model,
    pipe,
)

COUNT = 1000


@pytest.fixture
def board():
    return model()


def test_it_says_what_it_is(board):
    host = pipe(Wire(board))
    assert not board.lamps["session"]
    assert host.open() == Status(IDENTITY, version=1, ring=512, faults=0)
    assert board.lamps["session"]


def test_nothing_is_sent_twice_on_a_good_line_and_it_is_busy(board):
    host = pipe(Wire(board))
    host.open()
    data = random.Random(1).randbytes(150_000)  # numbers of bytes wrap twice
    start = board.clocks
    assert exchange(host, data) == data
    assert (host.traffic.resent, host.traffic.unusable) == (0, 0)
    assert len(data) * 10 * DIVISOR / (board.clocks - start) > 0.75


@pytest.mark.parametrize("value", [b"\0", b"\1", b"\xff", b"\0\xff"])
def test_bytes_of_one_value(board, value):
    host = pipe(Wire(board))
    host.open()
    for length in (*range(1, 8), *range(120, 140), 700):
        assert exchange(host, value * length) == value * length
    assert host.traffic.resent == 0


def wrong(kinds, chance, there, back, seed):
    rng = random.Random(seed)
    kinds = [KINDS[kind] for kind in kinds]
    return (
        Faults(random.Random(rng.random()), kinds if there else [], chance),
        Faults(random.Random(rng.random()), kinds if back else [], chance),
    )


def torture(board, there, back, count, seed):
    """Exchange bytes until `count` things went wrong."""
    rng = random.Random(seed)
    wire = Wire(board, there, back)
    host = pipe(wire, seed)
    host.open()
    sent = 0
    while there.count + back.count < count:
        data = rng.randbytes(rng.choice([1, 3, 20, 60, 200, 800]))
        assert exchange(host, data) == data
        sent += len(data)
    return host, sent


@pytest.mark.parametrize("way", ["there", "back"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_of_one_kind_on_one_way(board, kind, way):
    there, back = wrong([kind], 0.3, way == "there", way == "back", 1)
    torture(board, there, back, COUNT, 2)
    assert there.count + back.count >= COUNT


def test_all_faults_at_once(board):
    there, back = wrong(KINDS, 0.3, True, True, 3)
    torture(board, there, back, 3 * COUNT, 4)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["there", "back"])
@pytest.mark.parametrize("kind", KINDS)
def test_faults_by_the_ten_thousands(board, kind, way):
    there, back = wrong([kind], 0.25, way == "there", way == "back", 5)
    torture(board, there, back, 30_000, 6)
