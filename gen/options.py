"""The options by which gen, sim and boards are told what to build."""

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from gen.errors import UserError
from hw.config import Config, ConfigError, bounds, kind
from hw.tops import TOPS

BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def nearest(word: str, words: Iterable[str]) -> str:
    """Return a hint for an unknown word: the nearest valid one, or all of them.

    Parameters
    ----------
    word : str
        What came.
    words : iterable of str
        What would have been right.

    Returns
    -------
    str
        ``nearest is X``, or ``want one of X, Y`` where nothing is near.
    """
    choices = sorted(words)
    folded = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(word.lower(), folded, n=1)
    return f"nearest is {folded[close[0]]}" if close else f"want one of {', '.join(choices)}"


def config_class(top: str | None) -> type[Config]:
    """Return the configuration class of `top`.

    Raises
    ------
    UserError
        No such top, or none was given.
    """
    if top is None:
        raise UserError(f"--top is missing: want one of {', '.join(sorted(TOPS))}")
    if top not in TOPS:
        raise UserError(f"--top: there is no {top!r}; {nearest(top, TOPS)}")
    return TOPS[top].config


def resolve(top: str | None, preset: str | None, settings: Sequence[str]) -> Config:
    """Return the configuration that the options ask for.

    Parameters
    ----------
    top : str
        A key of ``hw.tops.TOPS``.
    preset : str, optional
        A key of the configuration's ``PRESETS``.
    settings : sequence of str
        ``name=value``, each name once.

    Raises
    ------
    UserError
        Unknown top, preset or parameter; a malformed or repeated setting; a value that the
        configuration refuses.
    """
    cls = config_class(top)
    preset = preset or "default"
    if preset not in cls.PRESETS:
        raise UserError(f"--preset: {top} has no {preset!r}; {nearest(preset, cls.PRESETS)}")
    values = parsed(str(top), settings)
    try:
        return cls.preset(preset, **values)
    except ConfigError as refused:
        raise UserError(f"{top}: {refused}") from refused


def parsed(top: str, settings: Sequence[str]) -> dict[str, Any]:
    """Return the values of parameters of a top.

    Parameters
    ----------
    top : str
        A key of ``hw.tops.TOPS``.
    settings : sequence of str
        ``name=value``, each name once.

    Raises
    ------
    UserError
        An unknown parameter; a malformed or repeated setting; a value of a wrong type.
    """
    fields = {field.name: field for field in config_class(top).parameters()}
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = (part.strip() for part in setting.partition("="))
        if not (name and equals and text):
            raise UserError(f"--set: want name=value, got {setting!r}")
        if name not in fields:
            raise UserError(f"--set {name}: {_whose(name, top, fields)}")
        if name in values:
            raise UserError(f"--set {name}: given more than once")
        values[name] = _parse(fields[name], text)
    return values


def _whose(name: str, top: str, fields: Iterable[str]) -> str:
    """Say of an unknown parameter which one may be meant."""
    owners = [
        other for other in sorted(TOPS) if name in {f.name for f in TOPS[other].config.parameters()}
    ]
    if owners:
        return f"not a parameter of {top} but of {', '.join(owners)}"
    return f"{top} has no such parameter; {nearest(name, fields)}"


def _parse(field: dataclasses.Field[Any], text: str) -> Any:
    """Return `text` as the parameter's type."""
    want = kind(field)
    try:
        if want is bool:
            return BOOLEANS[text.lower()]
        if want is int:
            return int(text, 0)
        return want(text)
    except (KeyError, ValueError) as wrong:
        raise UserError(f"--set {field.name}: want {bounds(field)}, got {text!r}") from wrong


def top_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--top``, ``--preset`` and ``--set`` to a command.

    The command gets them as `top`, `preset` and `settings`, the arguments of `resolve`. Names are
    left to `resolve`: it knows the nearest one.
    """
    for option in (
        click.option(
            "--set",
            "settings",
            metavar="NAME=VALUE",
            multiple=True,
            help="Set a parameter; may be given many times.",
        ),
        click.option("--preset", metavar="NAME", help="A named set of parameters."),
        click.option("--top", metavar="TOP", help="What to build; see --list."),
    ):
        command = option(command)
    return command
