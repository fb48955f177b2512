"""A release's archive, the same bytes for the same commit: archive.py PROGRAM NAME SECONDS."""

import gzip
import io
import pathlib
import subprocess
import sys
import tarfile
import time
import zipfile

program, name, seconds = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]), int(sys.argv[3])
windows = "-windows-" in name.name

files = {"bearer-proxy.exe" if windows else "bearer-proxy": program.read_bytes()}
for path in ["LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md"]:
    files[path] = pathlib.Path(path).read_bytes()
for folder, into in [("config", "examples"), *([("deploy/launchd", "launchd")] if "-macos-" in name.name else [])]:
    for path in pathlib.Path(folder).iterdir():
        files[f"{into}/{path.name}"] = path.read_bytes()
files["bearer-proxy.schema.json"] = subprocess.check_output([program, "schema"])

if windows:
    target = name.with_name(f"{name.name}.zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(files):
            entry = zipfile.ZipInfo(f"{name.name}/{path}", time.gmtime(seconds)[:6])
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[path])
else:
    target = name.with_name(f"{name.name}.tar.gz")
    with open(target, "wb") as out, gzip.GzipFile("", "wb", 9, out, mtime=0) as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for path in sorted(files):
                entry = tarfile.TarInfo(f"{name.name}/{path}")
                entry.size, entry.mtime = len(files[path]), seconds
                entry.mode = 0o755 if path == "bearer-proxy" else 0o644
                archive.addfile(entry, io.BytesIO(files[path]))
print(target)
