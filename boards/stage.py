"""What every part of the demo does: tell its steps, note its checks, run a unit."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping

import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gen.emit import Emission
from gen.errors import CheckFailed
from sim.job import Job
from sim.play import Played, play
from sim.runner import SIMULATORS, BuildError, Design, RunError, build


@dataclasses.dataclass(frozen=True)
class Step:
    """A step of the demo."""

    label: str
    seconds: float


class Steps:
    """Show the steps: a spinner with its time on a terminal, a line when it is done elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.done: list[Step] = []

    @contextlib.contextmanager
    def __call__(self, label: str) -> Iterator[None]:
        """Show and time one step."""
        start = time.monotonic()
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        live = self.console.is_terminal
        with Progress(*columns, console=self.console, transient=True, disable=not live) as progress:
            progress.add_task(label, total=None)
            yield
        self.add(label, time.monotonic() - start)

    def add(self, label: str, seconds: float) -> None:
        """Note a step that is done."""
        self.done.append(Step(label, seconds))
        self.console.print(f"{label} [dim]({seconds:.1f} s)[/dim]", highlight=False)


@dataclasses.dataclass
class Checks:
    """What was checked, and whether it held."""

    console: Console
    done: list[tuple[str, bool]] = dataclasses.field(default_factory=list)

    def __call__(self, what: str, held: bool) -> None:
        """Note and print a check."""
        self.done.append((what, held))
        mark = "[green]ok[/green]" if held else "[bold red]FAILED[/bold red]"
        self.console.print(f"  {mark} {what}", highlight=False)

    @property
    def passed(self) -> bool:
        """Whether all of them held."""
        return all(held for _, held in self.done)


def through(emission: Emission, batch: Mapping[str, np.ndarray]) -> Played:
    """Send a batch through the emitted Verilog of a top, back to back from reset on.

    Raises
    ------
    CheckFailed
        The simulation failed: the framing is wrong, or not enough came out.
    """
    design = Design(emission.name, {f"{emission.name}.v": emission.verilog})
    job = Job(emission.top, emission.config.asdict())
    simulator = SIMULATORS[0]
    try:
        played = play(build(design, simulator), design, simulator, job, batch)
    except (BuildError, RunError, CheckFailed) as wrong:
        raise CheckFailed(f"{emission.top}: {wrong}") from wrong
    if played.message:
        raise CheckFailed(f"{emission.top}: {played.message}")
    return played


def clocks_of(emission: Emission, inferences: int) -> int:
    """Return the clocks that the manifest promises for a batch without stalls."""
    config = emission.config
    return config.cycles + (inferences - 1) * config.period
