import copy
import hashlib
import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest

import gen
from gen.emit import emit
from gen.manifest import SCHEMA_FILE, as_json, digest
from gen.options import resolve

SCHEMA = json.loads(SCHEMA_FILE.read_text())


def test_file_is_the_manifest(emission):
    text = emission.files[f"{emission.name}.json"]
    assert json.loads(text) == json.loads(json.dumps(emission.manifest))
    assert text == as_json(emission.manifest)
    assert text.endswith("}\n")
    assert set(emission.manifest["files"].values()) == set(emission.files)


def test_hashes(emission):
    manifest = json.loads(emission.files[f"{emission.name}.json"])
    assert hashlib.sha256(emission.verilog.encode()).hexdigest() == manifest["sha256"]
    assert digest(manifest) == manifest["hash"]
    manifest["parameters"]["timesteps"] += 1
    assert digest(manifest) != manifest["hash"]


def test_ports_are_those_of_the_verilog(emission):
    top = emission.verilog.partition("endmodule")[0]
    found = re.findall(r"^  (in|out)put (?:\[(\d+):0\] )?(\w+);", top, re.MULTILINE)
    ports = {p["name"]: (p["direction"], p["width"]) for p in emission.manifest["ports"]}
    assert ports == {name: (way, int(high or 0) + 1) for way, high, name in found}


def test_streams_and_arrays_fit(emission):
    manifest = emission.manifest
    streams = {s["name"]: s for s in manifest["streams"]}
    ports = {p["name"]: p for p in manifest["ports"]}
    for stream in streams.values():
        bits = stream["lanes"] * stream["width"]
        assert ports[f"{stream['prefix']}_tdata"]["width"] == -(-bits // 8) * 8
        assert stream["beats"] * stream["lanes"] >= stream["elements"]
    for array in [*manifest["stimulus"].values(), *manifest["result"].values()]:
        stream = streams[array["stream"]]
        size = 1
        for length in array["shape"]:
            size *= length
        assert size == stream["steps"] * stream["elements"]


def test_timing_is_the_configurations(emission):
    config = emission.config
    expected = {"latency": config.latency, "interval": config.interval, "cycles": config.cycles}
    assert emission.manifest["timing"] == expected


def test_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: m.pop("ports"),
        lambda m: m.update(schema=2),
        lambda m: m.update(more=1),
        lambda m: m.update(sha256="0"),
        lambda m: m["streams"][0].pop("lanes"),
        lambda m: m["ports"][0].update(direction="both"),
        lambda m: m["timing"].update(latency=-1),
    ],
)
def test_schema_refuses(spoil):
    manifest = copy.deepcopy(emit("lif", resolve("lif", None, ["neurons=1"])).manifest)
    jsonschema.validate(manifest, SCHEMA)
    spoil(manifest)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, SCHEMA)


def test_version_is_the_packages():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["version"] == gen.__version__
