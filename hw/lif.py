"""Leaky integrate-and-fire neurons, exact in integers."""

import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, ClassVar

from amaranth import Cat, Const, Module, Mux, Shape, Signal, signed, unsigned
from amaranth.hdl import Value
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hw.arith import add_with_carry, multiply
from hw.config import Array, Config, ConfigError, param
from hw.stream import FaultCounter, FrameGuard, Stream, members
from hw.turns import following, kept_in_turn, read_ahead

SETTINGS = ("threshold", "bias")
"""What can be loaded at run time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LifConfig(Config):
    """Parameters of `Lif`.

    The stored membrane U is an integer: U = tau * h with `decay_input`, U = h without, so that

        U[t] = decay(S[t-1]) + X[t] + bias,    decay(S) = (1 - 1/tau) * S

    is the same hardware for both; what `decay_input` changes is which v_threshold the integer
    `threshold` stands for. U has `fraction_bits` fraction bits. S is U after the reset.

    Names of the libraries: `decay_input` is SpikingJelly's; its ``v_reset=0`` is `reset` hard and
    ``v_reset=None`` soft; snnTorch's ``reset_mechanism`` "zero", "subtract", "none" is hard, soft,
    none, its ``beta`` is 1 - 1/tau and its ``reset_delay`` is `reset_delay`.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "cifar": {"neurons": 512, "lanes": 16, "timesteps": 4},
        "icebreaker": {"neurons": 256, "lanes": 8, "timesteps": 4},
        "snntorch": {"neurons": 64, "lanes": 8, "tau": 10.0, "decay_input": False, "fire": "gt",
                     "reset": "soft", "reset_delay": True, "decay_bits": 10},
    }  # fmt: skip
    SIM_SETTINGS: ClassVar[Mapping[str, Any]] = {"trace": True}

    neurons: int = param(64, "neurons N", low=1, high=2**22)
    lanes: int = param(
        None, "neurons served in a clock", low=1, high=65536, derived="min(neurons, 16)"
    )
    channels: int = param(
        None, "neurons after which loaded thresholds and biases repeat", low=1, high=2**22,
        derived="neurons",
    )  # fmt: skip
    current_bits: int = param(8, "bits of an input current", low=1, high=24)
    current_signed: bool = param(True, "input currents are signed")
    tau: float = param(2.0, "membrane time constant in time steps", low=1, high=1024)
    decay_input: bool = param(True, "the input is divided by tau as well (U = tau * h)")
    threshold: int = param(
        None,
        "what U is compared with, in units of current; tau * v_threshold with decay_input, "
        "v_threshold without",
        low=1,
        high=2**24,
        derived="v_threshold 1.0: round(tau) with decay_input, 1 without",
    )
    reset: str = param(
        "hard", "to 0, minus the threshold, or none", choices=("hard", "soft", "none")
    )
    reset_delay: bool = param(False, "the reset acts in the next time step")
    fire: str = param("ge", "U >= threshold or U > threshold", choices=("ge", "gt"))
    bias: int = param(0, "added to U in every time step", low=-(2**23), high=2**23 - 1)
    fraction_bits: int = param(
        None, "fraction bits of U", low=0, high=24, derived="0 for tau 1 and 2, 6 elsewhere"
    )
    decay_bits: int = param(
        None,
        "bits of the decay factor 1 - 1/tau",
        low=0,
        high=24,
        derived="log2(tau) where tau is a power of two (exact), 16 elsewhere",
    )
    threshold_load: str = param(
        "none",
        "thresholds loaded at run time: none, one, or one for each of `channels`",
        choices=("none", "shared", "neuron"),
    )
    threshold_bits: int = param(16, "bits of a loaded threshold, unsigned", low=1, high=24)
    bias_load: str = param(
        "none", "biases loaded at run time, likewise", choices=("none", "shared", "neuron")
    )
    bias_bits: int = param(16, "bits of a loaded bias, signed", low=2, high=24)
    trace: bool = param(False, "a stream of the membrane beside the spikes")

    def resolve(self) -> None:
        tau = Fraction(self.tau)
        exact = tau.denominator == 1 and not tau.numerator & (tau.numerator - 1)
        self.derive(
            lanes=min(self.neurons, 16),
            channels=self.neurons,
            threshold=max(1, round(self.tau)) if self.decay_input else 1,
            fraction_bits=0 if self.tau in (1, 2) else 6,
            decay_bits=int(tau).bit_length() - 1 if exact else 16,
        )
        if self.current_signed and self.current_bits < 2:
            raise ConfigError("current_bits: want 2..24 with current_signed, got 1")
        if self.lanes > self.neurons:
            raise ConfigError(f"lanes: want at most neurons ({self.neurons}), got {self.lanes}")
        if self.channels != self.neurons and (
            self.neurons % self.channels or self.channels % self.lanes
        ):
            raise ConfigError(
                f"channels: want neurons ({self.neurons}) or a divisor of it that is a multiple of "
                f"lanes ({self.lanes}), got {self.channels}"
            )
        if self.threshold_load != "none" and self.threshold >= 2**self.threshold_bits:
            raise ConfigError(
                f"threshold: want at most {2**self.threshold_bits - 1} in threshold_bits "
                f"{self.threshold_bits}, got {self.threshold}"
            )
        if self.bias_load != "none" and bits_for(self.bias, True) > self.bias_bits:
            raise ConfigError(f"bias: want {self.bias_bits} bits (bias_bits), got {self.bias}")
        if exact and self.decay_bits < int(tau).bit_length() - 1:
            raise ConfigError(
                f"decay_bits: want at least {int(tau).bit_length() - 1} for tau {self.tau:g}, "
                f"got {self.decay_bits}"
            )

    @property
    def beats(self) -> int:
        """Beats of one time step."""
        return -(-self.neurons // self.lanes)

    @property
    def setting_beats(self) -> int:
        """Beats of loaded thresholds or biases, where each neuron has its own."""
        return -(-self.channels // self.lanes)

    @property
    def decay_factor(self) -> tuple[int, int]:
        """Numerator b and exponent s of the decay factor b / 2^s, in lowest terms."""
        factor = Fraction(round((1 - 1 / Fraction(self.tau)) * 2**self.decay_bits))
        factor /= 2**self.decay_bits
        return factor.numerator, factor.denominator.bit_length() - 1

    @property
    def rounding(self) -> int:
        """What is added to b * S before the shift by s.

        For a decay of 2^-s (or none) floor gives exactly the spikes of the real-valued neuron that
        fires at ``>=``, and ceiling those of one that fires at ``>``. Elsewhere the nearest value
        is best, a tie going away from firing; at s = 1 that is the same thing.
        """
        b, s = self.decay_factor
        upward = self.fire == "gt"
        if b <= 1:
            return 2**s - 1 if upward else 0
        return 2 ** (s - 1) - (not upward)

    def decay(self, membrane: int) -> int:
        """Return decay(S)."""
        b, s = self.decay_factor
        return (membrane * b + self.rounding) >> s

    @property
    def current_range(self) -> tuple[int, int]:
        """Least and greatest input current."""
        top = 2 ** (self.current_bits - self.current_signed)
        return -top if self.current_signed else 0, top - 1

    @property
    def _ranges(self) -> tuple[int, int, int, int]:
        """Least and greatest value that U can reach in any number of time steps, and those of S.

        The least fixed point of the recurrence over intervals.
        """
        unit = 2**self.fraction_bits
        x_low, x_high = self.current_range
        if self.bias_load == "none":
            x_low, x_high = x_low + self.bias, x_high + self.bias
        else:
            x_low -= 2 ** (self.bias_bits - 1)
            x_high += 2 ** (self.bias_bits - 1) - 1
        x_low, x_high = x_low * unit, x_high * unit
        t_low = t_high = self.threshold * unit
        if self.threshold_load != "none":
            t_low, t_high = unit, (2**self.threshold_bits - 1) * unit
        below = 1 if self.fire == "ge" else 0
        low = high = s_low = s_high = 0
        carry_low = carry_high = 0  # decay(S), with a delayed reset taken off
        while True:
            u_low, u_high = carry_low + x_low, carry_high + x_high
            rests = (
                [u_low, u_high] if self.reset == "none" else [u_low, min(u_high, t_high - below)]
            )
            fires = u_high >= t_low + 1 - below
            carries = [self.decay(s) for s in rests]
            if fires and self.reset == "hard":
                carries.append(0)
            elif fires and self.reset == "soft" and self.reset_delay:
                top = t_high if self.threshold_load != "none" else min(t_high, u_high)
                carries += [self.decay(t_low) - top, self.decay(u_high) - t_low]
                rests.append(u_high)
            elif fires and self.reset == "soft":
                carries += [0, self.decay(u_high - t_low)]
                rests.append(u_high - t_low)
            if (
                low <= u_low
                and high >= u_high
                and carry_low <= min(carries)
                and carry_high >= max(carries)
            ):
                return low, high, s_low, s_high
            low, high = min(low, u_low), max(high, u_high)
            s_low, s_high = min(s_low, *rests), max(s_high, *rests)
            carry_low, carry_high = min(carry_low, *carries), max(carry_high, *carries)

    @property
    def membrane_range(self) -> tuple[int, int]:
        """Least and greatest value that U or S can reach in any number of time steps.

        The membrane is as wide as it needs, and never wraps or saturates.
        """
        low, high, s_low, s_high = self._ranges
        return min(low, s_low), max(high, s_high)

    @property
    def membrane_bits(self) -> int:
        """Bits of U, signed."""
        return max(bits_for(bound, True) for bound in self.membrane_range)

    @property
    def state(self) -> Shape:
        """What holds S of a neuron: no wider than it can reach, which a hard reset bounds."""
        _, _, low, high = self._ranges
        if low >= 0:
            return unsigned(bits_for(high))
        return signed(max(bits_for(low, True), bits_for(high, True)))

    @property
    def streams(self) -> tuple[Stream, ...]:
        shape: dict[str, Any] = {"beats": self.beats, "elements": self.neurons, "lanes": self.lanes}
        one: dict[str, Any] = {"beats": 1, "elements": 1, "lanes": 1}
        own = shape | {"beats": self.setting_beats, "elements": self.channels}
        out = [
            Stream("current", "in", width=self.current_bits, signed=self.current_signed,
                   help="input currents, neurons ascending", **shape, steps=self.timesteps),
        ]  # fmt: skip
        if self.threshold_load != "none":
            out.append(
                Stream("threshold", "in", width=self.threshold_bits, signed=False, steps=1,
                       help="thresholds, taken between inferences", auxiliary=True,
                       **(own if self.threshold_load == "neuron" else one))
            )  # fmt: skip
        if self.bias_load != "none":
            out.append(
                Stream("bias", "in", width=self.bias_bits, signed=True, steps=1,
                       help="biases, taken between inferences", auxiliary=True,
                       **(own if self.bias_load == "neuron" else one))
            )  # fmt: skip
        out.append(Stream("spikes", "out", width=1, signed=False, help="spikes, neurons ascending",
                          **shape, steps=self.timesteps))  # fmt: skip
        if self.trace:
            out.append(
                Stream("membrane", "out", width=self.membrane_bits, signed=True, auxiliary=True,
                       help="U after reset and before the next decay, fraction bits included",
                       **shape, steps=self.timesteps)
            )  # fmt: skip
        return tuple(out)

    @property
    def stimulus(self) -> dict[str, Array]:
        shape: tuple[str, ...] = ("timesteps", "neurons")
        arrays = {"current": Array(shape, *self.current_range, "current", "input currents")}
        if self.threshold_load != "none":
            shape = ("channels",) if self.threshold_load == "neuron" else ()
            arrays["threshold"] = Array(
                shape, 1, 2**self.threshold_bits - 1, "threshold", "thresholds", optional=True
            )
        if self.bias_load != "none":
            shape = ("channels",) if self.bias_load == "neuron" else ()
            top = 2 ** (self.bias_bits - 1)
            arrays["bias"] = Array(shape, -top, top - 1, "bias", "biases", optional=True)
        return arrays

    @property
    def result(self) -> dict[str, Array]:
        shape = ("timesteps", "neurons")
        arrays = {"spikes": Array(shape, 0, 1, "spikes", "spikes")}
        if self.trace:
            low, high = self.membrane_range
            arrays["membrane"] = Array(shape, low, high, "membrane", "U * 2^fraction_bits")
        return arrays

    @property
    def latency(self) -> int:
        return 1

    @property
    def interval(self) -> int:
        return self.beats

    @property
    def cycles(self) -> int:
        return self.timesteps * self.beats

    @property
    def notes(self) -> dict[str, Any]:
        low, high = self.membrane_range
        b, s = self.decay_factor
        return {
            "membrane": f"signed {self.membrane_bits} bit, {self.fraction_bits} of them fraction; "
            f"reaches {low}..{high}, so it never wraps",
            "decay": f"(S * {b} + {self.rounding}) >> {s}",
            "v_threshold": self.threshold / self.tau if self.decay_input else self.threshold,
            "exact": self.tau in (1, 2),
        }


class LifCore(wiring.Component):
    """Charge, fire and reset: `lanes` neurons a clock, for whoever knows which they are.

    The state of the next beat is read ahead (beats come in a known order), so charge, fire and
    reset are one clock and need no forwarding. The first time
    step of an inference ignores it.

    Two other forms were tried. Charge and fire in two clocks costs a register of U a lane and
    forwarding at few beats. Clearing the state in the last time step instead of masking it in the
    first saves an AND per state bit, but leaves the state of an inference that was cut short.

    Combinational from `current` to `fired` and `membrane`.

    Parameters
    ----------
    config : LifConfig
    ahead : int
        1, or 2: with a register behind each memory.
    charged : bool
        Whether the output of this name is there.
    late : bool
        With a register of what is charged, so that all outputs come a clock later.
    sets : int
        So many sets of loaded thresholds and biases lie one behind another.

    Attributes
    ----------
    current : in
        `lanes` currents.
    moves : Signal(), in
        The neurons at hand take their currents now.
    opening : Signal(), in
        In the first time step of an inference.
    beat, upcoming : Signal(range(beats)), in
        Which they are, and which they will be in the next clock, or `ahead` clocks.
    setting : Signal(range(sets * setting_beats)), in
        Which loaded thresholds and biases those will have.
    threshold, bias : stream, in
        As `Lif` has them, where the configuration has them; a frame is that of all sets.
    fired : Signal(lanes), out
    membrane : out
        U after the reset, but for a delayed one.
    charged : out
        U before it.
    fault : Signal(), out
        A broken frame of settings is found, one pulse for each stream.
    """

    def __init__(
        self, config: LifConfig, ahead: int = 1, *, charged: bool = False, late: bool = False,
        sets: int = 1,
    ) -> None:  # fmt: skip
        self.config = config
        self._ahead = ahead
        self._late = late
        membrane = data.ArrayLayout(signed(config.membrane_bits), config.lanes)
        self._settings = {
            s.name: dataclasses.replace(s, beats=sets * s.beats)
            for s in config.streams
            if s.name in SETTINGS
        }
        beat = range(max(config.beats, 2))
        super().__init__(
            {name: In(s.signature) for name, s in self._settings.items()}
            | {
                "current": In(data.ArrayLayout(config.streams[0].element, config.lanes)),
                "moves": In(1),
                "opening": In(1),
                "beat": In(beat),
                "upcoming": In(beat),
                "setting": In(range(max(sets * config.setting_beats, 2))),
                "fired": Out(config.lanes),
                "membrane": Out(membrane),
                "fault": Out(max(len(self._settings), 1)),
            }
            | ({"charged": Out(membrane)} if charged else {})
        )

    def elaborate(self, platform: object) -> Module:
        c = self.config
        m = Module()
        settings: dict[str, Value] = {}
        for name, stream in self._settings.items():
            values, fault = loaded_setting(
                m, stream, getattr(self, name), getattr(c, name), self.setting, self._ahead
            )
            m.d.comb += self.fault[len(settings)].eq(fault)
            settings[name] = values
        state, after = self._state(m)
        for lane in range(c.lanes):
            setting = {n: v[lane % v.shape().length] for n, v in settings.items()}
            threshold = setting.get("threshold", Const(c.threshold)) << c.fraction_bits
            current = self.current[lane]
            if c.bias_load != "none":
                current = current + setting["bias"]
            elif c.bias:
                current = current + c.bias
            charged = Signal(signed(c.membrane_bits), name=f"charged{lane}")
            fired = self.fired[lane]
            rest = Signal(signed(c.membrane_bits), name=f"rest{lane}")

            before = Mux(self.opening, 0, state[lane].membrane)
            charge = self._charge(before, current << c.fraction_bits)
            if c.reset == "soft" and c.reset_delay:
                charge = charge - Mux(state[lane].fired & ~self.opening, threshold, 0)
            if self._late:
                with m.If(self.moves):
                    m.d.sync += charged.eq(charge)
            else:
                m.d.comb += charged.eq(charge)
            m.d.comb += [
                fired.eq(charged >= threshold if c.fire == "ge" else charged > threshold),
                rest.eq(charged),
                after[lane].membrane.eq(rest),
                self.membrane[lane].eq(charged if c.reset_delay else rest),
            ]
            if hasattr(self, "charged"):
                m.d.comb += self.charged[lane].eq(charged)
            if c.reset == "hard":
                m.d.comb += rest.eq(Mux(fired, 0, charged))
            elif c.reset == "soft" and c.reset_delay:
                m.d.comb += after[lane].fired.eq(fired)
            elif c.reset == "soft":
                m.d.comb += rest.eq(charged - Mux(fired, threshold, 0))
        return m

    def _charge(self, before: Value, current: Value) -> Value:
        """Return decay(before) + current."""
        b, s = self.config.decay_factor
        if (b, s) == (1, 1) and self.config.rounding:
            # Half of it rounded up: the lost bit is a carry.
            return add_with_carry(before >> 1, current, before[0])
        return ((multiply(before, b) + self.config.rounding) >> s) + current

    def _state(self, m: Module) -> tuple[data.View, data.View]:
        """Return (the state of the beat at hand, what it becomes when the beat moves)."""
        c = self.config
        fields = {"membrane": c.state}
        if c.reset == "soft" and c.reset_delay:
            fields["fired"] = unsigned(1)
        shape = data.ArrayLayout(data.StructLayout(fields), c.lanes)
        return kept_in_turn(
            m, "state", shape, c.beats, self.moves, self.beat, self.upcoming, self._ahead,
            late=self._late,
        )  # fmt: skip


def loaded_setting(
    m: Module, stream: Stream, port: Any, init: int, index: Value, ahead: int
) -> tuple[Any, Value]:
    """Keep what is loaded over a stream of settings.

    Parameters
    ----------
    m : Module
    stream : Stream
    port : its interface
    init : int
        What holds before anything is loaded.
    index : Signal(range(beats))
        Which beat of it is wanted, in `ahead` clocks.
    ahead : int

    Returns
    -------
    values : View
        The elements of the beat.
    fault : Signal()
        A broken frame is found.
    """
    name = stream.name
    guard = m.submodules[f"{name}_guard"] = FrameGuard(stream)
    wiring.connect(m, wiring.flipped(port), guard.i)
    m.d.comb += guard.o.ready.eq(1)
    shape = data.ArrayLayout(stream.element, stream.lanes)
    if stream.beats == 1:
        values = Signal(shape, init=[init] * stream.lanes, name=name, reset_less=True)
        with m.If(guard.o.valid):
            m.d.sync += values.eq(guard.o.payload.data)
        return values, guard.fault
    store = m.submodules[f"{name}_memory"] = memory.Memory(
        shape=shape, depth=stream.beats, init=[[init] * stream.lanes] * stream.beats
    )
    write, read = store.write_port(), store.read_port()
    m.d.comb += [
        write.addr.eq(guard.beat),
        write.data.eq(guard.o.payload.data),
        write.en.eq(guard.o.valid),
        read.addr.eq(index),
    ]
    return read_ahead(m, read.data, f"{name}_read", ahead), guard.fault


class Lif(wiring.Component):
    """N neurons on `lanes` parallel lanes, one beat of currents a clock for ever.

    A time step is ``beats = ceil(neurons / lanes)`` beats. Latency 1 clock, interval `beats`.

    Source: Spike-driven Transformer (arXiv 2307.01694), eq. 1-3; the exact integer form is derived
    in `LifConfig` (nested floors; U = 2h at tau 2).

    Parameters
    ----------
    config : LifConfig

    Attributes
    ----------
    current : stream, in
        `lanes` currents a beat.
    threshold, bias : stream, in
        Run-time settings, where the configuration has them: `lanes` elements a beat or one for
        all; one frame of a single time step. Always accepted, used from the next beat on; send
        them between inferences. They outlive ``rst``, as a memory does.
    spikes : stream, out
    membrane : stream, out
        With `trace`. Where the reset is delayed, U with the reset still to come.
    faults : Signal(8), out
        Broken frames so far, saturating.
    """

    def __init__(self, config: LifConfig) -> None:
        self.config = config
        super().__init__(members(config))

    def elaborate(self, platform: object) -> Module:
        c = self.config
        m = Module()
        m.submodules.guard = guard = FrameGuard(c.streams[0])
        wiring.connect(m, wiring.flipped(self.current), guard.i)
        m.submodules.core = core = LifCore(c)
        loads = [name for name in SETTINGS if hasattr(self, name)]
        for name in loads:
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(core, name))
        m.submodules.fault_counter = faults = FaultCounter(1 + len(loads))
        m.d.comb += [
            self.faults.eq(faults.count),
            faults.fault.eq(Cat(guard.fault, core.fault)),
        ]

        # One beat in, one beat on each output.
        outputs = [self.spikes] + ([self.membrane] if c.trace else [])
        taken = Cat(~o.valid | o.ready for o in outputs).all()
        moves = Signal()
        m.d.comb += [guard.o.ready.eq(taken), moves.eq(guard.o.valid & taken)]
        for o in outputs:
            with m.If(taken):
                m.d.sync += [
                    o.valid.eq(guard.o.valid),
                    o.payload.last.eq(guard.o.payload.last),
                    o.payload.first.eq(guard.o.payload.first),
                ]
            with m.Elif(o.ready):
                m.d.sync += o.valid.eq(0)

        # Beats come in order: the address of the next one is known, behind a broken frame too.
        at_end = guard.beat == c.beats - 1
        restarts = guard.broken | (moves & at_end)
        m.d.comb += [
            core.current.eq(guard.o.payload.data),
            core.moves.eq(moves),
            core.opening.eq(guard.opening),
            core.beat.eq(guard.beat),
            core.upcoming.eq(Mux(restarts, 0, guard.beat + moves)),
            core.setting.eq(core.upcoming),
        ]
        if c.channels < c.neurons:
            setting = Signal.like(core.setting)
            after = following(setting, c.setting_beats)
            m.d.comb += core.setting.eq(Mux(restarts, 0, Mux(moves, after, setting)))
            m.d.sync += setting.eq(core.setting)
        for lane in range(c.lanes):
            idle = at_end if lane >= c.neurons - (c.beats - 1) * c.lanes else Const(0)
            with m.If(taken):
                m.d.sync += self.spikes.payload.data[lane].eq(core.fired[lane] & ~idle)
                if c.trace:
                    m.d.sync += self.membrane.payload.data[lane].eq(
                        Mux(idle, 0, core.membrane[lane])
                    )
        return m
