"""The agent of deploy/launchd: launchd.py PROGRAM. What launchd itself would do is imitated, on any Unix."""

import pathlib
import plistlib
import signal
import subprocess
import sys
import tempfile
import time

KNOWN = {
    "Label": str,
    "ProgramArguments": list,
    "RunAtLoad": bool,
    "KeepAlive": dict,
    "ExitTimeOut": int,
    "ProcessType": str,
    "Umask": int,
    "SoftResourceLimits": dict,
}


def main(program):
    agent = plistlib.loads(pathlib.Path("deploy/launchd/bearer-proxy.plist").read_bytes())
    assert {key: type(value) for key, value in agent.items()} == KNOWN, agent
    assert agent["Umask"] == 0o077 and agent["ExitTimeOut"] > 21
    command = [word.replace("/usr/local/bin/bearer-proxy", program) for word in agent["ProgramArguments"]]
    with tempfile.TemporaryDirectory() as home:
        home = pathlib.Path(home)
        (home / "Library/Logs").mkdir(parents=True)
        log, file = home / "Library/Logs/bearer-proxy.log", home / ".config/bearer-proxy/bearer-proxy.toml"
        # Without a configuration, and with a wrong one, it ends well: launchd does not start it again.
        file.parent.mkdir(parents=True)
        for text, said in [(None, "cannot be read"), ("version = 1\nservr = 1\n", "unknown key `servr`")]:
            if text:
                file.write_text(text)
            ended = subprocess.run(command, stdout=subprocess.DEVNULL, env={"HOME": str(home)}, timeout=30)
            assert ended.returncode == 0 and said in log.read_text(), log.read_text()
        secret = home / "secret"
        secret.touch(0o600)
        secret.write_text("s3cret")
        file.write_text(CONFIGURATION.format(secret=secret))
        log.write_text("")
        started = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={"HOME": str(home)})
        try:
            wait_for(lambda: "\"listening\"" in log.read_text(), log)
            started.send_signal(signal.SIGTERM)
            assert started.wait(agent["ExitTimeOut"]) == 0, log.read_text()
        finally:
            started.kill()
    print("deploy/launchd: no loop with a wrong configuration, SIGTERM drains")


def wait_for(condition, log):
    for _ in range(300):
        if condition():
            return
        time.sleep(0.1)
    sys.exit(f"not started: {log.read_text()}")


CONFIGURATION = """
version = 1
[server]
listen = "127.0.0.1:0"
[admin]
listen = "off"
[credentials.bank]
token_url = "http://127.0.0.1:9/token"
client_id = "erp"
client_secret.file = "{secret}"
[upstreams.bank]
url = "http://127.0.0.1:9"
credential = "bank"
routes = [{{ name = "all", path = "/**", methods = ["GET"] }}]
"""

main(sys.argv[1])
