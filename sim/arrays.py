"""The arrays of ``--stimulus`` and ``--result``: read, checked, compared, written."""

import contextlib
import io
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from gen.emit import write
from gen.errors import UserError
from gen.options import nearest
from hw.config import Array, Config

Arrays = dict[str, np.ndarray]


def shape(config: Config, array: Array) -> tuple[int, ...]:
    """Return the shape of an array of one inference."""
    return tuple(getattr(config, axis) for axis in array.shape)


def load(path: Path, config: Config) -> tuple[Arrays, bool]:
    """Return the stimulus in a file, with a leading batch axis, and whether it had that axis.

    Raises
    ------
    UserError
        The file can't be read; an array is missing, unknown, or of wrong type, shape or range.
    """
    return check(archive(path), config, f" in {path}")


def archive(path: Path) -> Arrays:
    """Return the arrays in an .npz file.

    Raises
    ------
    UserError
        The file can't be read.
    """
    try:
        # numpy would leave a file open that it opened itself and can't read.
        with path.open("rb") as raw, contextlib.ExitStack() as stack:
            file = np.load(raw, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise UserError(f"{path}: want an .npz file with named arrays, got a single array")
            stack.enter_context(file)
            return {name: _read(path, file, name) for name in file.files}
    except OSError as wrong:
        raise UserError(f"can't read {path}: {wrong.strerror or wrong}") from wrong
    except (ValueError, EOFError, zipfile.BadZipFile) as wrong:
        raise UserError(f"{path}: not an .npz file") from wrong


def check(found: Mapping[str, ArrayLike], config: Config, where: str = "") -> tuple[Arrays, bool]:
    """Return a stimulus with a leading batch axis, and whether it had that axis.

    Parameters
    ----------
    found : mapping of str to array_like
    config : Config
    where : str
        Behind "missing", where the arrays were looked for.

    Raises
    ------
    UserError
        An array is missing, unknown, or of wrong type, shape or range.
    """
    stimulus = config.stimulus
    given = {name: _array(name, values) for name, values in found.items()}
    for name in given:
        if name not in stimulus:
            raise UserError(f"{name}: not an array of the stimulus; {nearest(name, stimulus)}")
    for name, array in stimulus.items():
        if name not in given and not array.optional:
            axes = ", ".join(array.shape)
            raise UserError(f"{name}: missing{where}; want {name} [{axes}], {array.help}")
    batches: dict[str, int | None] = {
        name: _check(name, values, stimulus[name], shape(config, stimulus[name]))
        for name, values in given.items()
    }
    first = next(iter(batches))
    for name, batch in batches.items():
        if batch != batches[first]:
            raise UserError(
                f"{name}: want {_words(batches[first])} as {first} has, got {_words(batch)}"
            )
    batched = batches[first] is not None
    return {
        name: np.asarray(values if batched else values[np.newaxis], np.int64)
        for name, values in given.items()
    }, batched


def _read(path: Path, file: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    try:
        return np.asarray(file[name])
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as wrong:
        raise UserError(f"{name}: can't be read from {path}: {wrong}") from wrong


def _array(name: str, values: ArrayLike) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as wrong:
        raise UserError(f"{name}: want an array, got rows of several lengths") from wrong


def _words(batch: int | None) -> str:
    return "no batch axis" if batch is None else f"a batch of {batch}"


def _check(name: str, values: np.ndarray, array: Array, want: tuple[int, ...]) -> int | None:
    """Return the length of the batch axis, None without one, or raise a `UserError`."""
    if values.dtype.kind not in "iub":
        raise UserError(f"{name}: want integers or bools, got {values.dtype}")
    batched = values.shape[1:] == want and values.ndim == len(want) + 1
    if values.shape != want and not batched:
        axes = ", ".join(array.shape)
        raise UserError(
            f"{name}: want shape {list(want)} ({axes}), or {['B', *want]} with a batch; "
            f"got {list(values.shape)}".replace("'", "")
        )
    if not values.size:
        raise UserError(f"{name}: want a batch of at least 1, got 0")
    low, high = int(values.min()), int(values.max())
    if low < array.low or high > array.high:
        worst = low if low < array.low else high
        raise UserError(f"{name}: want values in {array.low}..{array.high}, got {worst}")
    return len(values) if batched else None


def mismatch(want: Arrays, got: Arrays) -> str | None:
    """Return one line on the first value that differs, None if there is none.

    Parameters
    ----------
    want, got : dict of str to ndarray
        With a leading batch axis; first is what is first in time.
    """
    differs = []
    for order, name in enumerate(want):
        places = np.argwhere(want[name] != got[name])
        if len(places):
            inference, *index = (int(i) for i in places[0])
            differs.append((inference, index[0], order, name, index))
    if not differs:
        return None
    inference, _, _, name, index = min(differs)
    place = (inference, *index)
    return (
        f"{name}[{', '.join(map(str, index))}] of inference {inference}: "
        f"expected {want[name][place]}, got {got[name][place]}"
    )


def check_target(path: Path) -> None:
    """Refuse, before anything is computed, a file that `save` could not write.

    Raises
    ------
    UserError
        It is a folder, or the nearest folder above it that there is can't be written.
    """
    above = next(folder for folder in path.absolute().parents if folder.exists())
    reason = ""
    if path.is_dir():
        reason = "is a folder"
    elif not above.is_dir():
        reason = f"{above} is no folder"
    elif not os.access(above, os.W_OK):
        reason = f"{above} can't be written"
    if reason:
        raise UserError(f"can't write {path}: {reason}")


def save(path: Path, arrays: Arrays) -> None:
    """Write arrays to an .npz file, whole or not at all."""
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    write({path.name: packed.getvalue()}, path.parent)
