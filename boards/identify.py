"""Which top a board holds: a link tells the hash of its manifest and no more."""

import itertools
import json
from collections.abc import Iterable, Iterator

from boards.build import FACTS
from boards.packet import identity
from boards.results import BUILT
from gen.errors import UserError
from gen.manifest import describe, digest
from gen.options import config_class
from hw.config import Config, ConfigError
from hw.tops import TOPS


def manifest_identity(top: str, config: Config, name: str | None = None) -> bytes:
    """Return what a board with a top says of it; `name` is that of the module."""
    return identity(digest(describe(top, config, name or top, "v")))


def recognised(said: bytes, guesses: Iterable[tuple[str, Config]] = ()) -> tuple[str, Config]:
    """Return the top that a board has, by what it says of itself.

    Looked for among the guesses, the presets of all tops, and the bitstreams in `BUILT`.

    Raises
    ------
    UserError
        None of them.
    """
    for top, config in itertools.chain(guesses, _candidates()):
        if manifest_identity(top, config) == said:
            return top, config
    raise UserError(
        f"--top: the board has manifest {said.hex()}, which is no preset's and none in {BUILT}: "
        "say which top and settings it has"
    )


def in_words(said: bytes, guesses: Iterable[tuple[str, Config]] = ()) -> str:
    """Return the top that a board has, as a user would ask for it, or its manifest's hash."""
    try:
        top, config = recognised(said, guesses)
    except UserError:
        return said.hex()
    cls = type(config)
    for preset in cls.PRESETS:
        if cls.preset(preset) == config:
            return f"{top}, preset {preset}"
    default = cls.preset("default").asdict()
    changed = [f"{n}={v}" for n, v in config.asdict().items() if v != default[n]]
    return f"{top} with {' '.join(changed)}"


def _candidates() -> Iterator[tuple[str, Config]]:
    for top, entry in TOPS.items():
        for preset in entry.config.PRESETS:
            yield top, entry.config.preset(preset)
    for file in sorted(BUILT.glob(f"*/{FACTS}")):
        try:
            facts = json.loads(file.read_text())
            yield facts["top"], config_class(facts["top"])(**facts["parameters"])
        except (OSError, ValueError, KeyError, TypeError, ConfigError, UserError):
            continue  # of another version
