"""Weights and biases on their way into the engine."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.linear.engine import Engine
from hw.stream import FrameGuard
from hw.transformer.block import BlockConfig


class Load(wiring.Component):
    """Take settings between images, of which none begins once there are some.

    Parameters
    ----------
    config : BlockConfig
    engine : Engine
        What is written.

    Attributes
    ----------
    weights, bias, threshold, shift, attention_threshold : stream, in
        Those that the configuration has.
    o_threshold, o_shift, o_attention_threshold : stream, out
        Passed on.
    rests : Signal(), in
        Nothing is computed, and no beat of an image has come.
    moves : Signal(), in
        One comes now.
    closed : Signal(), out
        None may come.
    fault : Signal(2), out
    """

    def __init__(self, config: BlockConfig, engine: Engine) -> None:
        self._config = config
        self._engine = engine
        signatures = {name: config.stream(name).signature for name in config.settings}
        self._passed = config.settings[2:]
        super().__init__(
            {name: In(signature) for name, signature in signatures.items()}
            | {f"o_{name}": Out(signatures[name]) for name in self._passed}
            | {"rests": In(1), "moves": In(1), "closed": Out(1), "fault": Out(2)}
        )

    def elaborate(self, platform: object) -> Module:
        c, engine = self._config, self._engine
        m = Module()
        loading, wanted = Signal(), Signal()
        ports = [getattr(self, name) for name in c.settings]
        opened = Signal(len(ports))  # frames that have begun
        for i, port in enumerate(ports):
            with m.If(port.valid & port.ready):
                m.d.sync += opened[i].eq(~port.payload.last)
        offered = Cat(port.valid for port in ports).any()
        m.d.comb += self.closed.eq(loading | (wanted & self.rests))
        m.d.sync += [
            wanted.eq(offered),
            loading.eq(Mux(loading, offered | opened.any(), offered & self.rests & ~self.moves)),
        ]
        for name in self._passed:
            port, out = getattr(self, name), getattr(self, f"o_{name}")
            m.d.comb += [
                out.payload.eq(port.payload),
                out.valid.eq(port.valid & loading),
                port.ready.eq(out.ready & loading),
            ]

        guards = []
        for name in ("weights", "bias"):
            guard = m.submodules[f"{name}_guard"] = FrameGuard(c.stream(name))
            wiring.connect(m, wiring.flipped(getattr(self, name)), guard.i)
            m.d.comb += guard.o.ready.eq(loading)
            guards.append(guard)
        weights, bias = guards
        # Weights are written a clock later: their blocks lie far apart.
        lane = Signal(c.lanes, init=1)
        place = Signal.like(engine.weights_address)
        enable = Signal(c.lanes)
        word = Signal.like(engine.weights_data)
        ends = Signal()
        write = weights.o.valid & loading
        m.d.sync += [
            enable.eq(Mux(write, lane, 0)),
            word.eq(weights.o.payload.data.as_value()),
            ends.eq(weights.broken | weights.done),
        ]
        m.d.comb += [
            engine.loads.eq(loading),
            engine.weights_enable.eq(enable),
            engine.weights_address.eq(place),
            engine.weights_data.eq(word),
            engine.bias_enable.eq(bias.o.valid & loading),
            engine.bias_address.eq(bias.beat),
            engine.bias_data.eq(bias.o.payload.data),
            self.fault.eq(Cat(weights.fault, bias.fault)),
        ]
        with m.If(weights.broken | weights.done):
            m.d.sync += lane.eq(1)
        with m.Elif(write):
            m.d.sync += lane.eq(lane.rotate_left(1))
        with m.If(ends):
            m.d.sync += place.eq(0)
        with m.Elif(enable[-1]):
            m.d.sync += place.eq(place + 1)
        return m
