"""Read the file of a trained network."""

import importlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from gen.errors import UserError

WRAPPERS = ("state_dict", "model", "model_state_dict", "net")
"""Under what training scripts put a state_dict into a checkpoint."""

PREFIX = "module."
"""What PyTorch's parallel training puts in front of names."""

State = dict[str, np.ndarray]


def read(path: Path) -> State | Any:
    """Return the arrays of a state_dict by their names, or a ``nir.NIRGraph``.

    Raises
    ------
    UserError
        Where there is no such file, it is no model, or an array is not of finite numbers.
    """
    readers = {
        ".npz": _npz,
        ".safetensors": _safetensors,
        ".pt": _torch,
        ".pth": _torch,
        ".tar": _torch,
        ".nir": _nir,
        ".h5": _nir,
    }
    if path.suffix not in readers:
        raise UserError(
            f"{path}: want a file that ends in {', '.join(readers)}, got {path.suffix or 'none'!r}"
        )
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    return readers[path.suffix](path)


def archive(path: Path) -> State:
    """Return the arrays of a NumPy archive, whatever they are."""
    try:
        # NumPy leaves a file open that it opened and can't read.
        with path.open("rb") as raw:
            file = np.load(raw, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise UserError(f"{path}: no NumPy archive of arrays: it is one array")
            with file:
                return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as wrong:
        raise UserError(f"{path}: no NumPy archive of arrays: {wrong}") from wrong


def _npz(path: Path) -> State:
    return checked(path, archive(path))


def _safetensors(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
    except (SafetensorError, OSError, TypeError, KeyError, AttributeError) as wrong:
        raise UserError(f"{path}: no file of safetensors that NumPy reads: {wrong}") from wrong
    return checked(path, arrays)


def _torch(path: Path) -> State:
    try:
        torch = importlib.import_module("torch")
    except ImportError as missing:
        raise UserError(
            f"{path}: to read it needs PyTorch, which is not installed here: save the state_dict "
            "as .safetensors or .npz (numpy.savez(file, **{name: tensor.numpy()}))"
        ) from missing
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as wrong:  # unpickling raises whatever it likes
        raise UserError(f"{path}: no checkpoint of plain tensors: {wrong}") from wrong
    for wrapper in WRAPPERS:
        if isinstance(saved, dict) and isinstance(saved.get(wrapper), dict):
            saved = saved[wrapper]
            break
    if not isinstance(saved, dict):
        raise UserError(f"{path}: want a state_dict, got a {type(saved).__name__}")
    tensors = {name: value for name, value in saved.items() if hasattr(value, "detach")}
    return checked(path, {name: x.detach().double().numpy() for name, x in tensors.items()})


def _nir(path: Path) -> Any:
    import nir

    try:
        # Whether shapes agree is found out while layers are made: scalars for all channels, which
        # snnTorch writes, are a mismatch to nir.
        return nir.read(path, type_check=False)
    except Exception as wrong:  # h5py and nir raise whatever they like
        raise UserError(f"{path}: no graph of NIR: {wrong}") from wrong


def checked(path: Path, arrays: State) -> State:
    """Return arrays as float64, without a common prefix; refuse what is no number."""
    if not arrays:
        raise UserError(f"{path}: there are no arrays in it")
    whole = all(name.startswith(PREFIX) for name in arrays)
    state = {}
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise UserError(f"{path}: {name} is not of numbers but of {array.dtype}")
        state[name.removeprefix(PREFIX) if whole else name] = finite(name, array)
    return state


def finite(name: str, array: Any) -> np.ndarray:
    """Return an array as float64; refuse it where a number in it is not finite."""
    numbers = np.asarray(array, np.float64)
    if not np.isfinite(numbers).all():
        count = int((~np.isfinite(numbers)).sum())
        raise UserError(f"{name}: {count} of {numbers.size} numbers in it are NaN or infinite")
    return numbers
