#!/usr/bin/env python3
"""windows.py EXE: the Windows service under Wine, with a token server and an API of this script.

Installs it, starts it without, with a wrong and with a right configuration, calls through it, reloads it, stops it
with a request under way, and removes it. Wine has no accounts, access lists or restarts of services, so these are not
tried.
"""

import http.server
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

PROXY = "http://127.0.0.1:16750"
ADMIN = "http://127.0.0.1:16751"


class Bank(http.server.BaseHTTPRequestHandler):
    """The token server at /token, and an API that is slow at /v1/slow."""

    slow = threading.Event()

    def answer(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = {"token": self.headers.get("authorization", "none")}
        if self.path == "/token":
            body = {"access_token": "T1", "token_type": "Bearer", "expires_in": 600}
        if self.path == "/v1/slow":
            Bank.slow.set()
            time.sleep(2)
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


def until(what, condition, seconds=30):
    """Waits for a condition, which may fail with an error of the operating system until then."""
    end = time.monotonic() + seconds
    while True:
        try:
            value = condition()
        except OSError:
            value = None
        if value:
            return value
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.1)


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.read().decode()


class Wine:
    """A prefix of its own. Output goes to files: Wine's services would keep a pipe open."""

    def __init__(self, folder):
        self.folder = folder
        self.environment = os.environ | {
            "WINEPREFIX": str(folder / "prefix"),
            # ReportEvent writes events to stderr, errors and warnings as such.
            "WINEDEBUG": "-all,err+eventlog,warn+eventlog,trace+eventlog",
            "DISPLAY": "",
        }
        self.log = open(folder / "wine.log", "wb")
        subprocess.run(["wineboot", "-i"], env=self.environment, timeout=180, **self.streams())
        subprocess.run(["wineserver", "-k"], env=self.environment, timeout=60, **self.streams())
        # The service control manager, whose services write to the same log, lives as long as a program does.
        self.shell = subprocess.Popen(["wine", "cmd"], env=self.environment,
                                      **self.streams() | {"stdin": subprocess.PIPE})
        until("a shell", lambda: "Microsoft Windows" in self.events())

    def streams(self):
        return {"stdin": subprocess.DEVNULL, "stdout": self.log, "stderr": self.log}

    def run(self, *command):
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(["wine", *command], env=self.environment, timeout=60, stdin=subprocess.DEVNULL,
                                  stdout=output, stderr=self.log)
            output.seek(0)
            return done.returncode, output.read().decode(errors="replace")

    def events(self):
        return (self.folder / "wine.log").read_text(errors="replace")

    def state(self):
        """The lines of `sc query` as a dictionary: STATE, SERVICE_EXIT_CODE, …"""
        lines = self.run("sc", "query", "bearer-proxy")[1].splitlines()
        return {key.strip(): value.split("(")[0].strip() for key, _, value in (line.partition(":") for line in lines)}

    def end(self):
        self.shell.stdin.close()
        subprocess.run(["wineserver", "-k"], env=self.environment, timeout=60, **self.streams())
        self.shell.wait(timeout=60)


def configuration(bank, path):
    return f"""version = 1

[server]
listen = "127.0.0.1:16750"

[admin]
listen = "127.0.0.1:16751"

[shutdown]
lame_duck = "0s"

[credentials.bank]
token_url = "{bank}/token"
client_id = "me"
client_secret.file = 'C:\\ProgramData\\bearer-proxy\\secret'

[upstreams.bank]
url = "{bank}"
credential = "bank"
routes = [{{ name = "all", path = "{path}", methods = ["GET"] }}]
"""


def story(wine, exe, bank):
    code, said = wine.run(exe, "service", "install")
    assert code == 0 and "installed the service bearer-proxy" in said, said
    folder = wine.folder / "prefix/drive_c/ProgramData/bearer-proxy"
    assert folder.is_dir(), "install makes the folder"

    file = folder / "bearer-proxy.toml"
    for text in [None, "version = 1\n[servr]\n"]:
        if text:
            file.write_text(text)
        wine.run("net", "start", "bearer-proxy")
        # 1066 is ERROR_SERVICE_SPECIFIC_ERROR: Windows does not restart the service.
        until("an end with 78", lambda: wine.state().get("SERVICE_EXIT_CODE") == "78")
        assert wine.state()["STATE"].startswith("1"), wine.state()
    assert "the configuration cannot be read" in wine.events(), "the event log says why"

    (folder / "secret").write_text("s3cret")
    file.write_text(configuration(bank, "/v1/**"))
    wine.run("net", "start", "bearer-proxy")
    until("ready", lambda: get(f"{ADMIN}/readyz"), 60)
    assert wine.state()["STATE"].startswith("4"), wine.state()
    answer = get(f"{PROXY}/v1/quick")
    assert "Bearer T1" in answer, answer

    file.write_text(configuration(bank, "/{version}/**"))
    until("a reload", lambda: "Bearer T1" in get(f"{PROXY}/v2/quick"))

    answers = []
    slow = threading.Thread(target=lambda: answers.append(get(f"{PROXY}/v1/slow")))
    slow.start()
    assert Bank.slow.wait(20)
    wine.run("net", "stop", "bearer-proxy")
    slow.join(timeout=30)
    assert answers and "Bearer T1" in answers[0], "a request under way ends with its answer"
    until("stopped", lambda: wine.state()["STATE"].startswith("1"))
    assert wine.state()["WIN32_EXIT_CODE"] == "0", wine.state()
    for event in ['\\"starting\\"', '\\"stopped\\"']:
        assert event in wine.events(), event

    wine.run("net", "start", "bearer-proxy")
    until("ready again", lambda: get(f"{ADMIN}/readyz"), 60)
    code, said = wine.run(exe, "service", "uninstall")
    assert code == 0 and "removed the service" in said, said
    assert file.exists() and "STATE" not in wine.state()
    code, _ = wine.run(exe, "service", "run")
    assert code == 1, "only the service control manager starts it"


def main():
    exe = str(pathlib.Path(sys.argv[1]).resolve())
    bank = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bank)
    threading.Thread(target=bank.serve_forever, daemon=True).start()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="windows."))
    wine = Wine(folder)
    try:
        story(wine, exe, f"http://127.0.0.1:{bank.server_address[1]}")
        print("Windows service: installed, refused a wrong configuration, served, reloaded, drained, removed")
    except BaseException:
        print(wine.events()[-6000:], wine.state())
        raise
    finally:
        wine.end()
        shutil.rmtree(folder, ignore_errors=True)


main()
