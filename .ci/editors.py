"""The JSON Schema and `check` agree on every fixture; editors.py PROGRAM, from the root of the sources."""

import json
import pathlib
import subprocess
import sys
import tomllib

import jsonschema

# The test in src/config/schema.rs reads it too.
LISTS = json.loads(pathlib.Path("tests/fixtures/config/schema.json").read_text())


def main(program):
    schema = json.loads(subprocess.check_output([program, "schema"]))
    jsonschema.Draft202012Validator.check_schema(schema)
    entry = json.loads(pathlib.Path("deploy/schemastore/catalog-entry.json").read_text())
    wrong = [] if entry["url"] == schema["$id"] else ["the catalog entry has another address than $id"]
    validator = jsonschema.Draft202012Validator(schema)
    seen = {"both take": 0, "both refuse": 0, "only check refuses": 0}
    for folder in ["config", *(f"tests/fixtures/config/{kind}" for kind in ["good", "warned", "bad"])]:
        for path in sorted(pathlib.Path(folder).glob("*.toml")):
            check = subprocess.run([program, "check", "--config", path], capture_output=True, text=True, env={})
            try:
                faults = [fault.message for fault in validator.iter_errors(tomllib.loads(path.read_text()))]
            except tomllib.TOMLDecodeError:
                faults = ["not TOML"]
            of_shape = path.stem not in LISTS["open"] and any(error in check.stderr for error in LISTS["of_shape"])
            if check.returncode == 0 and faults:
                wrong.append(f"{path}: only the schema refuses it: {faults}")
            elif check.returncode != 0 and not faults and of_shape:
                wrong.append(f"{path}: only check refuses it:\n{check.stderr}")
            elif check.returncode == 0:
                seen["both take"] += 1
            else:
                seen["both refuse" if faults else "only check refuses"] += 1
    print(", ".join(f"{kind}: {number}" for kind, number in seen.items()))
    if wrong:
        sys.exit("\n".join(wrong))


main(sys.argv[1])
