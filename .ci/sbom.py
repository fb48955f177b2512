"""A bill of materials is complete and names nothing of this machine: sbom.py FILE FEATURES, from the root of the sources."""

import json
import os
import pathlib
import subprocess
import sys


def main(path, features):
    text = pathlib.Path(path).read_text()
    bill = json.loads(text)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5"), path
    tree = ["cargo", "tree", "--locked", "--no-default-features", "--features", features, "--target", "all"]
    tree += ["--edges", "normal,build", "--prefix", "none", "--format", "{p}"]
    lines = subprocess.check_output(tree, text=True).splitlines()
    used = {tuple(line.split()[:2]) for line in lines if line and not line.startswith("bearer-proxy ")}
    named = {(part["name"], "v" + part["version"]) for part in bill["components"]}
    without_licence = [part["name"] for part in bill["components"] if not part.get("licenses")]
    faults = [f"not named: {used - named}"] if used - named else []
    faults += [f"without a licence: {without_licence}"] if without_licence else []
    faults += [f"names {place}" for place in [os.getcwd(), os.environ["HOME"]] if place in text]
    faults += ["a component without purl"] if not all(part.get("purl") for part in bill["components"]) else []
    if faults:
        sys.exit("\n".join(faults))
    print(f"{path}: {len(named)} crates")


main(*sys.argv[1:])
