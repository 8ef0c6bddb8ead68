"""The form of ``model.json``, said in one line where it is not that."""

import json
from pathlib import Path
from typing import Any

import jsonschema

SCHEMA_FILE = Path(__file__).parent / "model.schema.json"


def check(model: Any) -> None:
    """Refuse what is not of the form that ``model.schema.json`` has.

    Raises
    ------
    ValueError
        Where, and what is wrong there.
    """
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    errors = jsonschema.Draft202012Validator(schema).iter_errors(model)
    first = next(iter(errors), None)
    if first is not None:
        error = _innermost(first)
        where = "".join(f"[{x!r}]" for x in error.absolute_path)
        raise ValueError(f"model.json{where}: {error.message}")


def _innermost(error: jsonschema.ValidationError) -> jsonschema.ValidationError:
    """Return what is wrong with a layer of its kind, and not that it is of no other kind."""
    if error.validator != "oneOf" or not error.context:
        return error
    branches: dict[Any, list[jsonschema.ValidationError]] = {}
    for one in error.context:
        branches.setdefault(one.schema_path[0], []).append(one)
    for branch in branches.values():
        if not any(one.path and one.path[-1] == "kind" for one in branch):
            return _innermost(branch[0])
    layer: Any = error.instance
    return jsonschema.ValidationError(
        f"no kind of layer {layer['kind']!r}",
        parent=error.parent,
        path=[*error.relative_path, "kind"],
    )
