"""What is emitted of a top: its Verilog, its manifest, and an example of how it is instantiated."""

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gen.errors import UserError
from gen.manifest import as_json, describe, digest, seal
from gen.render import render
from gen.verilog import IDENTIFIER, KEYWORDS, SCRIPTS, convert, yosys
from hw.config import Config
from hw.stream import AxiShell
from hw.tops import TOPS

__all__ = ["FORMS", "Emission", "emit", "write", "yosys"]

WAIVERS = Path(__file__).parent / "waivers.vlt"

FORMS = tuple(SCRIPTS)
"""Forms of the text: plain Verilog-2005, and SystemVerilog to be read by eye."""

LONGEST_NAME = 128
"""Characters of a module's name; those of its submodules and files are longer."""


@dataclasses.dataclass(frozen=True)
class Emission:
    """A top as files.

    Attributes
    ----------
    top : str
        Key of ``hw.tops.TOPS``.
    name : str
        Name of the module.
    config : Config
    form : {"v", "sv"}
    files : dict of str to str
        Text by file name: the Verilog, the manifest, an example of its instantiation, and lint
        waivers for Verilator.
    manifest : dict
    """

    top: str
    name: str
    config: Config
    form: str
    files: dict[str, str]
    manifest: dict[str, Any]

    @property
    def verilog(self) -> str:
        """The text of the Verilog file."""
        return self.files[self.manifest["files"]["verilog"]]


def emit(top: str, config: Config, *, name: str | None = None, form: str = "v") -> Emission:
    """Return the files of a top.

    Parameters
    ----------
    top : str
        Key of ``hw.tops.TOPS``.
    config : Config
        An instance of that top's configuration class.
    name : str, optional
        Name of the module, of the files and prefix of every submodule; the top's if left out.
    form : {"v", "sv"}

    Raises
    ------
    UserError
        `name` can't be a Verilog name.
    """
    name = check_name(top if name is None else name)
    description = describe(top, config, name, form)
    facts = {"manifest": description, "hash": digest(description), "help": TOPS[top].help}
    component = AxiShell(TOPS[top].component(config), config.streams)
    verilog = render("header.v.j2", **facts) + convert(component, name, form)
    sealed = seal(description, verilog)
    names = description["files"]
    return Emission(
        top=top,
        name=name,
        config=config,
        form=form,
        files={
            names["verilog"]: verilog,
            names["manifest"]: as_json(sealed),
            names["instance"]: render("instance.v.j2", **facts),
            names["waivers"]: WAIVERS.read_text().replace('"*"', f'"*{names["verilog"]}"'),
        },
        manifest=sealed,
    )


def check_name(name: str) -> str:
    """Return `name` if a module can be called so, or raise `UserError`."""
    if not IDENTIFIER.fullmatch(name) or len(name) > LONGEST_NAME:
        raise UserError(
            f"--name: want a Verilog identifier (letters, digits and _, at most {LONGEST_NAME}), "
            f"got {name!r}"
        )
    if name in KEYWORDS:
        raise UserError(f"--name: {name!r} is a keyword of Verilog")
    return name


def write(files: Mapping[str, str | bytes], folder: str | os.PathLike[str]) -> list[Path]:
    """Write files whole or not at all.

    All are staged beside their places before the first is moved there.

    Parameters
    ----------
    files : mapping of str to str or bytes
        Content by file name.
    folder : path
        Made if there is none.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    UserError
        The folder can't be made or written.
    """
    folder = Path(folder)
    targets = [folder / name for name in files]
    staged = [folder / f".{name}.{os.getpid()}.tmp" for name in files]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for target in targets:
            if target.is_dir():
                raise IsADirectoryError(None, "is a folder", str(target))
        for path, content in zip(staged, files.values(), strict=True):
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        for path, target in zip(staged, targets, strict=True):
            os.replace(path, target)
    except OSError as wrong:
        raise UserError(
            f"can't write {wrong.filename or folder}: {wrong.strerror or wrong}"
        ) from wrong
    finally:
        for path in staged:
            with contextlib.suppress(OSError):
                path.unlink()
    return targets
