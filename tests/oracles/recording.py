"""What the recorders share: a recording is an npz file of the same bytes each time, and a checksum.

The array ``cases`` of a recording holds one JSON object a case, ``recorder`` the versions of the
packages beneath the libraries; all others are the recorder's own.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np


def assemble(
    cases: Sequence[Mapping[str, object]], arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Put the description of a recording before its arrays.

    Parameters
    ----------
    cases : sequence of mapping
        What JSON can hold, and a unique ``name``.
    arrays : mapping
        The recorder's own arrays by name.

    Returns
    -------
    dict
        The arrays of the recording by name, in a fixed order.
    """
    described = np.array([json.dumps(case, sort_keys=True) for case in cases])
    recorder = json.dumps({name: version(name) for name in ("numpy", "torch")})
    return {"cases": described, "recorder": np.array(recorder), **arrays}


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
        One line that names the array or the case and says what differs; None if nothing does.
    """
    for name, new in made.items():
        if name not in recorded:
            return f"the array {name!r} is missing"
        if name in ("cases", "recorder"):
            continue  # what they say is of less interest than a difference in a result
        old = recorded[name]
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            return (
                f"{name}: {old.dtype}{list(old.shape)} in the recording, "
                f"{new.dtype}{list(new.shape)} now"
            )
        if not np.array_equal(old, new):
            first = tuple(int(i) for i in np.argwhere(old != new)[0])
            return (
                f"{name}: {np.count_nonzero(old != new)} elements differ, first at {list(first)}: "
                f"{old[first]} in the recording, {new[first]} now"
            )
    if extra := sorted(recorded.keys() - made.keys()):
        return f"{extra[0]}: in the recording, but no case makes it"
    recorded_cases = {case["name"]: case for case in map(json.loads, recorded["cases"])}
    for case in map(json.loads, made["cases"]):
        other = recorded_cases.get(case["name"], {})
        for field in sorted(case.keys() | other.keys()):
            if other.get(field) != case.get(field):
                return (
                    f"{case['name']}: {field} is {other.get(field)!r} in the recording, "
                    f"{case.get(field)!r} now"
                )
    if not np.array_equal(recorded["cases"], made["cases"]):
        return "cases: the recording has others as well, or another order"
    if not np.array_equal(recorded["recorder"], made["recorder"]):
        return f"recorder: {recorded['recorder']} in the recording, {made['recorder']} now"
    return None


def check(path: Path, made: dict[str, np.ndarray]) -> str | None:
    """Compare a file with the recording made again.

    Parameters
    ----------
    path : pathlib.Path
        The npz file; its checksum lies beside it, with the suffix ``.sha256``.
    made : dict
        What it should hold: arrays by name.

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
    if (found := difference(recorded, made)) is not None:
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


def main(path: Path, record: Callable[[], dict[str, np.ndarray]], description: str) -> int:
    """Record, or check the recording: the command line of a recorder.

    Parameters
    ----------
    path : pathlib.Path
        The npz file.
    record : callable
        Makes the recording: arrays by name.
    description : str
        What the command does, for ``--help``.

    Returns
    -------
    int
        The exit status: 1 when the check found a difference.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--check", action="store_true", help="compare with the recording instead of writing it"
    )
    if parser.parse_args().check:
        if (found := check(path, record())) is not None:
            print(f"{path.name}: {found}", file=sys.stderr)
            return 1
        return 0
    data = pack(record())
    write(path, data)
    write(path.with_suffix(".sha256"), checksum_line(path, data).encode())
    return 0
