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

import argparse
import dataclasses
import hashlib
import io
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import snntorch
import torch
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
        metadata.append(json.dumps(case.metadata(spikes, membrane), sort_keys=True))
        arrays[f"{case.name}.current"] = current
        arrays[f"{case.name}.spikes"] = spikes
        arrays[f"{case.name}.membrane"] = membrane
    recorder = json.dumps({name: version(name) for name in ("numpy", "torch")})
    return {"cases": np.array(metadata), "recorder": np.array(recorder), **arrays}


def pack(arrays: dict[str, np.ndarray]) -> bytes:
    """Pack arrays into the bytes of an npz file.

    ``numpy.savez_compressed`` takes the time stamps that ``zipfile`` gives, which differ between
    versions of Python. Here they are fixed, and so is the system that made the entry.

    Parameters
    ----------
    arrays : dict
        The arrays by name.

    Returns
    -------
    bytes
        The file. Same arrays, same bytes, as far as it is the same zlib.
    """
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, member.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
    return file.getvalue()


def difference(recorded: dict[str, np.ndarray], made: dict[str, np.ndarray]) -> str | None:
    """Find the first difference between two recordings.

    Parameters
    ----------
    recorded, made : dict
        Arrays by name.

    Returns
    -------
    str or None
        One line that names the case and says what differs; None if nothing does.
    """
    if "cases" not in recorded:
        return "the array 'cases' is missing"
    recorded_cases = {json.loads(text)["name"]: json.loads(text) for text in recorded["cases"]}
    for text in made["cases"]:
        case = json.loads(text)
        name = case["name"]
        if name not in recorded_cases:
            return f"{name}: not in the recording"
        # The arrays first: what differs in them tells more than a count of spikes.
        for kind in ("current", "spikes", "membrane"):
            key = f"{name}.{kind}"
            if key not in recorded:
                return f"{name}: {kind} is missing"
            old, new = recorded[key], made[key]
            if (old.shape, old.dtype) != (new.shape, new.dtype):
                return (
                    f"{name}: {kind} is {old.dtype}{list(old.shape)} in the recording, "
                    f"{new.dtype}{list(new.shape)} now"
                )
            if not np.array_equal(old, new):
                step, index = (int(i) for i in np.argwhere(old != new)[0])
                return (
                    f"{name}: {kind} differs in {np.count_nonzero(old != new)} places, first at "
                    f"step {step}, neuron {index}: {old[step, index]} in the recording, "
                    f"{new[step, index]} now"
                )
        for field in sorted(case.keys() | recorded_cases[name].keys()):
            old, new = recorded_cases[name].get(field), case.get(field)
            if old != new:
                return f"{name}: {field} is {old!r} in the recording, {new!r} now"
    if extra := sorted(recorded.keys() - made.keys()):
        return f"{extra[0]}: in the recording, but no case makes it"
    if not np.array_equal(recorded["cases"], made["cases"]):
        return "cases: the recording has others as well, or another order"
    if not np.array_equal(recorded.get("recorder"), made["recorder"]):
        return f"recorder: {recorded.get('recorder')} in the recording, {made['recorder']} now"
    return None


def check(path: Path) -> str | None:
    """Make the recording again and compare it with a file.

    Parameters
    ----------
    path : pathlib.Path
        The npz file; its checksum lies beside it, with the suffix ``.sha256``.

    Returns
    -------
    str or None
        One line that says what is wrong; None if nothing is.
    """
    try:
        data = path.read_bytes()
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            recorded = {name: archive[name] for name in archive.files}
        checksum = path.with_suffix(".sha256").read_text(encoding="utf-8")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        return f"the recording can't be read: {error}"
    if (found := difference(recorded, record())) is not None:
        return found
    if checksum != checksum_line(path, data):
        return f"the file does not have the SHA-256 that {path.stem}.sha256 says"
    return None


def checksum_line(path: Path, data: bytes) -> str:
    """Format the checksum of a file as ``sha256sum --check`` reads it.

    Parameters
    ----------
    path : pathlib.Path
        Where the file lies; only its name is used.
    data : bytes
        Its contents.

    Returns
    -------
    str
        The line, with its end.
    """
    return f"{hashlib.sha256(data).hexdigest()}  {path.name}\n"


def write(path: Path, data: bytes) -> None:
    """Write a file so that it appears whole or not at all.

    Parameters
    ----------
    path : pathlib.Path
        Where to.
    data : bytes
        The contents.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def main() -> int:
    """Record, or check the recording.

    Returns
    -------
    int
        The exit status: 1 when the check found a difference.
    """
    parser = argparse.ArgumentParser(description="Record the libraries' own LIF neurons.")
    parser.add_argument(
        "--check", action="store_true", help="compare with the recording instead of writing it"
    )
    if parser.parse_args().check:
        if (found := check(RECORDING)) is not None:
            print(f"{RECORDING.name}: {found}", file=sys.stderr)
            return 1
        return 0
    data = pack(record())
    write(RECORDING, data)
    write(RECORDING.with_suffix(".sha256"), checksum_line(RECORDING, data).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
