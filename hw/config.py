"""Frozen, validated configurations: what every unit's parameters have in common."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from hw.stream import Stream


class ConfigError(ValueError):
    """A parameter that cannot be had; the message is one line for the user."""


def divisors(number: int) -> list[int]:
    """Return the divisors of a number, ascending."""
    return [d for d in range(1, number + 1) if number % d == 0]


def most_divisor(number: int, most: int, part: int = 1) -> int:
    """Return the greatest divisor up to `most` that is a multiple of a part; `number` for none."""
    return max((d for d in divisors(number) if d <= most and d % part == 0), default=number)


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of ``--stimulus`` or ``--result``.

    Attributes
    ----------
    shape : tuple of str
        Names of the axes; each is a field or a property of the configuration.
    low, high : int
        Range of the values, both ends included.
    stream : str
        The stream of the top that carries it.
    optional : bool
        Whether a stimulus may leave it out.
    help : str
        What it is.
    """

    shape: tuple[str, ...]
    low: int
    high: int
    stream: str
    help: str
    optional: bool = False


def param(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    derived: str = "",
) -> Any:
    """Declare a parameter: a dataclass field with its meaning and range.

    Parameters
    ----------
    default : object
        The value without a request; None where `derived` says what it follows from.
    help : str
        One line: meaning and unit.
    low, high : float, optional
        Range, both ends included.
    choices : tuple of str
        Allowed words.
    derived : str
        The rule by which a default of None is replaced.
    """
    meta = {"help": help, "low": low, "high": high, "choices": choices, "derived": derived}
    return dataclasses.field(default=default, metadata=meta)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Base of the configurations: checks types and ranges, then the unit's own rules.

    A subclass lists its fields with `param`, fills in derived defaults and refuses conflicts in
    `resolve`, and describes the unit's face to the outside: `streams`, `arrays`, `latency`,
    `interval`, `cycles`. All of gen, sim and boards work from these alone.

    Raises
    ------
    ConfigError
        One line that says what was wanted and what came.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}}
    #: Emitted by the simulator so that everything there is to see can be compared.
    SIM_SETTINGS: ClassVar[Mapping[str, Any]] = {}

    timesteps: int = param(4, "time steps T of one inference", low=1, high=65535)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None or not field.metadata["derived"]:
                object.__setattr__(self, field.name, check(field, value))
        self.resolve()
        for field in dataclasses.fields(self):
            check(field, getattr(self, field.name))

    def derive(self, **values: Any) -> None:
        """Fill in the parameters among `values` that were left to be derived."""
        for name, value in values.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    def resolve(self) -> None:
        """Fill in derived defaults and refuse conflicts; a unit's own rules."""

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams of the component, inputs first."""
        raise NotImplementedError

    @property
    def stimulus(self) -> dict[str, Array]:
        """The arrays that go in."""
        raise NotImplementedError

    @property
    def result(self) -> dict[str, Array]:
        """The arrays that come out."""
        raise NotImplementedError

    @property
    def latency(self) -> int:
        """Clocks from the first beat in to the first beat out, nobody stalling."""
        raise NotImplementedError

    @property
    def interval(self) -> int:
        """Clocks from one time step to the next in the steady state."""
        raise NotImplementedError

    @property
    def pause(self) -> int:
        """Clocks that an inference takes longer than its time steps in the steady state."""
        return 0

    @property
    def period(self) -> int:
        """Clocks from one inference to the next in the steady state."""
        return self.timesteps * self.interval + self.pause

    @property
    def by_inference(self) -> bool:
        """Whether outputs come of whole inferences alone, so that a broken one leaves no trace."""
        return False

    @property
    def cycles(self) -> int:
        """Clocks from the first beat in to the last beat out of one inference."""
        raise NotImplementedError

    @property
    def large_memory(self) -> bool:
        """Whether there is a memory for a device's large RAM of a single port, if it has some."""
        return False

    @property
    def asks(self) -> bool:
        """Whether neighbours are asked for answers, so that arrays alone do not tell what comes."""
        return any(s.peer and s.direction == "in" for s in self.streams)

    @property
    def waits(self) -> bool:
        """Whether clocks depend on the neighbours that are asked."""
        return False

    @property
    def echoes(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Output streams that repeat what was loaded: the array, and the order of its axes."""
        return {}

    @property
    def steady(self) -> dict[str, int]:
        """Values of settings with which no clocks depend on data; nothing where none ever do."""
        return {}

    @property
    def busiest(self) -> dict[str, int]:
        """Values of main inputs with which an inference takes longest: clocks are bounds then.

        Nothing where no clocks depend on what is sent.
        """
        return {}

    @property
    def notes(self) -> dict[str, Any]:
        """What else the manifest says of this configuration (formats, seeds, queues)."""
        return {}

    @classmethod
    def parameters(cls) -> tuple[dataclasses.Field[Any], ...]:
        """Return the parameters in the order of declaration."""
        return dataclasses.fields(cls)

    @classmethod
    def preset(cls, name: str, **settings: Any) -> Self:
        """Return the named preset with `settings` on top."""
        return cls(**{**cls.PRESETS[name], **settings})

    def replace(self, **settings: Any) -> Self:
        """Return a copy with `settings`; what was derived is kept unless it is set."""
        return dataclasses.replace(self, **settings)

    def asdict(self) -> dict[str, Any]:
        """Return every parameter, derived ones included."""
        return dataclasses.asdict(self)


class HeadedConfig(Config):
    """Base of those with `channels` that are cut into `heads` of `head_dim`, each a parameter."""

    channels: int
    heads: int
    head_dim: int

    def derive_heads(self, usual_heads: int, usual_head_dim: int) -> None:
        """Fill in what is missing among the three.

        Heads of given channels are the most up to `usual_heads` that divide them.

        Raises
        ------
        ConfigError
            The three do not go together.
        """
        channels: int | None = self.channels
        head_dim: int | None = self.head_dim
        if channels is None:
            self.derive(heads=usual_heads, head_dim=usual_head_dim)
            self.derive(channels=self.heads * self.head_dim)
        elif head_dim is None:
            self.derive(heads=most_divisor(channels, usual_heads))
            self.derive(head_dim=max(channels // self.heads, 1))
        else:
            self.derive(heads=max(channels // head_dim, 1))
        if self.heads * self.head_dim != self.channels:
            raise ConfigError(
                f"channels: want heads * head_dim ({self.heads} * {self.head_dim}), "
                f"got {self.channels}"
            )


def kind(field: dataclasses.Field[Any]) -> type:
    """Return the type of a parameter: int, float, bool or str."""
    assert isinstance(field.type, type)
    return field.type


def bounds(field: dataclasses.Field[Any]) -> str:
    """Return the range of a parameter in words."""
    meta = field.metadata
    if meta["choices"]:
        return " | ".join(meta["choices"])
    if kind(field) is bool:
        return "true | false"
    if meta["low"] is not None or meta["high"] is not None:
        low = "" if meta["low"] is None else f"{meta['low']}"
        return f"{low}..{'' if meta['high'] is None else meta['high']}"
    return kind(field).__name__


def check(field: dataclasses.Field[Any], value: Any) -> Any:
    """Return `value` as the parameter's type, or raise `ConfigError`."""
    meta = field.metadata
    want = kind(field)
    wrong = ConfigError(f"{field.name}: want {bounds(field)}, got {value!r}")
    if want is float and type(value) is int:
        value = float(value)
    if type(value) is not want or (isinstance(value, float) and not math.isfinite(value)):
        raise wrong
    if meta["choices"] and value not in meta["choices"]:
        raise wrong
    if (meta["low"] is not None and value < meta["low"]) or (
        meta["high"] is not None and value > meta["high"]
    ):
        raise wrong
    return value
