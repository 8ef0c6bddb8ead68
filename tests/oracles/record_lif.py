"""Record the spikes of SpikingJelly's and snnTorch's own LIF neurons.

The recording is the outside reference of the integer LIF: the libraries that people train with make
it, and no code of this project has a part in it. Run it in the environment that has both::

    .venv-oracles/bin/python tests/oracles/record_lif.py            # writes lif.npz and lif.sha256
    .venv-oracles/bin/python tests/oracles/record_lif.py --check    # makes it again and compares

Arrays of ``lif.npz``
---------------------
``cases`` : str, shape (C,)
    One JSON object a case, with the fields of :class:`Case` and what follows from them.
``NAME.current`` : int8, shape (T, N)
    Input current, in units of U without fraction bits.
``NAME.spikes`` : uint8, shape (T, N)
    The library's spikes, 0 or 1.
``NAME.membrane`` : float64, shape (T, N)
    The library's membrane at the end of the step: after a same-step reset, before a delayed one.
    In units of U it is ``scale * membrane``.
``recorder`` : str, shape ()
    JSON object: the versions of the packages beneath the libraries.

What the libraries compute
--------------------------
In terms of U, with ``b = 1 - 1/tau``, the integers X and threshold, and 0 before the first step:

* SpikingJelly ``LIFNode``: ``U[t] = b * S[t-1] + X[t]``, fires at ``U >= threshold``; then S is 0
  (``v_reset=0.0``, here ``hard``) or ``U - threshold`` (``v_reset=None``, here ``soft``) where it
  fired, and U elsewhere. ``decay_input`` changes the scale of U and nothing else.
* snnTorch ``Leaky``: fires at ``U > threshold``. With a delayed reset (``reset_delay=True``)
  ``U[t] = b * U[t-1] + X[t] - fired[t-1] * threshold`` (``subtract``, here ``soft``) or
  ``U[t] = b * (0 if fired[t-1] else U[t-1]) + X[t]`` (``zero``, here ``hard``).
* snnTorch ``Leaky`` with ``reset_delay=False`` resets in the same step. With ``subtract`` it
  compares U with *twice* the threshold in a step that begins with ``S[t-1] > threshold``; where it
  fires the membrane loses one threshold all the same. Cases in which such a step occurs have
  ``double_threshold`` true, and their spikes are not those of a neuron without this quirk.

Both compute in floating point and get float64 here. Over 48 steps of tau 2 that is as good as
rational arithmetic; from step 54 on a constant current fires at a threshold that its membrane only
approaches.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import snntorch
import torch
from recording import assemble, main
from spikingjelly.activation_based import neuron

RECORDING = Path(__file__).resolve().with_name("lif.npz")
TIMESTEPS = 48
SNNTORCH_RESETS = {"hard": "zero", "soft": "subtract", "none": "none"}


@dataclasses.dataclass(frozen=True)
class Case:
    """One recorded neuron.

    Parameters
    ----------
    library : str
        ``spikingjelly`` (``LIFNode``) or ``snntorch`` (``Leaky``).
    tau : int
        Membrane time constant in steps, at least 2; the decay factor is ``1 - 1/tau``.
    decay_input : bool
        SpikingJelly's ``decay_input``; false for snnTorch, which has no such choice.
    threshold : int
        Threshold in units of U.
    reset : str
        ``hard``, ``soft`` or ``none``.
    reset_delay : bool
        snnTorch's ``reset_delay``; false for SpikingJelly, which resets in the same step.
    neurons : int
        Number of neurons N, a multiple of 4.
    seed : int
        Seed of the current.
    """

    library: str
    tau: int
    decay_input: bool
    threshold: int
    reset: str
    reset_delay: bool
    neurons: int
    seed: int

    @property
    def name(self) -> str:
        """Name of the case, unique in the recording."""
        parts = [self.library, f"tau{self.tau}"]
        if self.library == "spikingjelly":
            parts += ["decay" if self.decay_input else "nodecay", self.reset]
        else:
            parts += [self.reset, "delayed" if self.reset_delay else "same"]
        return "-".join([*parts, f"threshold{self.threshold}"])

    @property
    def scale(self) -> int:
        """U in terms of the library's membrane."""
        return self.tau if self.decay_input else 1

    @property
    def v_threshold(self) -> float:
        """The library's own threshold."""
        return self.threshold / self.scale

    def current(self) -> np.ndarray:
        """Draw the input current.

        Returns
        -------
        numpy.ndarray
            int8 of shape (TIMESTEPS, neurons). A quarter of the neurons each gets uniform numbers
            of the full signed 8 bits, of -8 to 24, of the threshold's size, and a constant.
        """
        random = np.random.default_rng(self.seed)
        near = min(self.threshold, 127)
        quarter = (TIMESTEPS, self.neurons // 4)
        constant = random.integers(-near, near, quarter[1], endpoint=True)
        parts = [
            random.integers(-128, 127, quarter, endpoint=True),
            random.integers(-8, 24, quarter, endpoint=True),
            random.integers(-near, near, quarter, endpoint=True),
            np.broadcast_to(constant, quarter),
        ]
        return np.concatenate(parts, axis=1).astype(np.int8)

    def run(self, current: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run the library's neuron.

        Parameters
        ----------
        current : numpy.ndarray
            int8 of shape (T, N).

        Returns
        -------
        spikes : numpy.ndarray
            uint8 of shape (T, N).
        membrane : numpy.ndarray
            float64 of shape (T, N), in the library's own units.
        """
        run = _run_spikingjelly if self.library == "spikingjelly" else _run_snntorch
        with torch.no_grad():
            spikes, membrane = run(self, torch.from_numpy(current).to(torch.float64))
        # -0.0 would not survive a round trip through integers, and means nothing here.
        return spikes.numpy().astype(np.uint8), membrane.numpy() + 0.0

    def metadata(self, spikes: np.ndarray, membrane: np.ndarray) -> dict[str, object]:
        """Describe the case for the recording.

        Parameters
        ----------
        spikes, membrane : numpy.ndarray
            What :meth:`run` returned.

        Returns
        -------
        dict
            The fields, and ``name``, ``version`` of the library, ``decay`` (numerator and
            denominator of the decay factor), ``v_threshold``, ``scale``, ``fire`` (``ge`` or
            ``gt``), ``timesteps``, ``spikes`` (how many), ``double_threshold``, and ``exact``:
            whether the integer neuron without fraction bits gives exactly these spikes.
        """
        # Only a same-step subtraction leaves a membrane above the threshold in snnTorch, and
        # only a step that begins with one shows it.
        double_threshold = (
            self.library == "snntorch"
            and self.reset == "soft"
            and not self.reset_delay
            and bool((membrane[:-1] > self.threshold).any())
        )
        return {
            **dataclasses.asdict(self),
            "name": self.name,
            "version": version(self.library),
            "decay": [self.tau - 1, self.tau],
            "v_threshold": self.v_threshold,
            "scale": self.scale,
            "fire": "ge" if self.library == "spikingjelly" else "gt",
            "timesteps": TIMESTEPS,
            "spikes": int(spikes.sum()),
            "double_threshold": double_threshold,
            "exact": self.tau == 2 and not double_threshold,
        }


def _run_spikingjelly(case: Case, current: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    node = neuron.LIFNode(
        tau=float(case.tau),
        decay_input=case.decay_input,
        v_threshold=case.v_threshold,
        v_reset={"hard": 0.0, "soft": None}[case.reset],
        step_mode="m",
        store_v_seq=True,
    )
    spikes = node(current)
    return spikes, node.v_seq


def _run_snntorch(case: Case, current: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # As Python floats both would become float32.
    node = snntorch.Leaky(
        beta=torch.tensor(1 - 1 / case.tau, dtype=torch.float64),
        threshold=torch.tensor(case.v_threshold, dtype=torch.float64),
        reset_mechanism=SNNTORCH_RESETS[case.reset],
        reset_delay=case.reset_delay,
    )
    # Without `mem` the first call would start from the membrane that the object holds.
    membrane = torch.zeros_like(current[0])
    steps = []
    for step in current:
        spikes, membrane = node(step, membrane)
        steps.append((spikes, membrane))
    return torch.stack([s for s, _ in steps]), torch.stack([m for _, m in steps])


def cases() -> Iterator[Case]:
    """List the cases: every choice of each library at tau 2, and a selection at other tau.

    Yields
    ------
    Case
        In the order of the recording, each with a seed of its own.
    """
    seed = 1
    for tau, thresholds, neurons in (
        (2, (2, 100), 64),
        (4, (64,), 20),
        (8, (128,), 20),
        (3, (48,), 20),
        (10, (160,), 20),
    ):
        for threshold in thresholds:
            choices = [
                ("spikingjelly", decay_input, reset, False)
                for decay_input in (True, False)
                for reset in ("hard", "soft")
            ] + [
                ("snntorch", False, reset, reset_delay)
                for reset in ("hard", "soft", "none")
                for reset_delay in (True, False)
                if tau == 2 or (reset_delay and reset != "none")
            ]
            for library, decay_input, reset, reset_delay in choices:
                yield Case(library, tau, decay_input, threshold, reset, reset_delay, neurons, seed)
                seed += 1


def record() -> dict[str, np.ndarray]:
    """Run every case.

    Returns
    -------
    dict
        The arrays of the recording by name, in a fixed order.
    """
    metadata = []
    arrays = {}
    for case in cases():
        current = case.current()
        spikes, membrane = case.run(current)
        metadata.append(case.metadata(spikes, membrane))
        arrays[f"{case.name}.current"] = current
        arrays[f"{case.name}.spikes"] = spikes
        arrays[f"{case.name}.membrane"] = membrane
    return assemble(metadata, arrays)


if __name__ == "__main__":
    sys.exit(main(RECORDING, record, "Record the libraries' own LIF neurons."))
