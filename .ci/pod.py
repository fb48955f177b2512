"""Runs the sidecar of deploy/kubernetes as a kubelet would, by podman: pod.py IMAGE.

The containers of a pod share one network and nothing else. The sidecar gets its volumes as a kubelet
makes them: ConfigMap and Secret as links into a folder that is swapped as a whole. Its bank is played by
this program, in the network of the pod. IPv6 addresses are added to the pod's loopback interface, since
there is no other network."""

import http.server
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import yaml

ROOT = pathlib.Path(__file__).parent.parent
PODMAN = ["podman", "--runtime", "runc", "--cgroup-manager=cgroupfs", "--storage-driver", "vfs"]
NAME = f"bearer-proxy-ci-pod-{os.getpid()}"
# The limits of the pod's first container, which has no option for them.
CONF = tempfile.NamedTemporaryFile("w", suffix=".conf", delete=False).name
BANK = "http://127.0.0.1:9000"
POD_IPS = ["10.99.0.1", "fd00:99::1"]


class Bank(http.server.BaseHTTPRequestHandler):
    """Its token endpoint, and the API that wants the token."""

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        form = self.rfile.read(length).decode()
        if self.path == "/token":
            body = {"access_token": re.sub(r"\W", "-", form), "token_type": "Bearer", "expires_in": 3600}
        else:
            body = {"authorization": self.headers.get("Authorization")}
        body = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


def podman(*words, check=True):
    done = subprocess.run([*PODMAN, *words], capture_output=True, text=True, env=os.environ | {"CONTAINERS_CONF": CONF})
    if check and done.returncode != 0:
        sys.exit(f"error: podman {' '.join(words)}\n{done.stdout}{done.stderr}")
    return done


def publish(folder, files):
    """Files as a kubelet publishes them: a new folder, and one link that is swapped."""
    folder.mkdir(exist_ok=True)
    version = pathlib.Path(tempfile.mkdtemp(prefix="..", dir=folder))
    version.chmod(0o755)
    for name, text in files.items():
        (version / name).write_text(text)
        (version / name).chmod(0o444)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..data_tmp").symlink_to(version.name)
    (folder / "..data_tmp").rename(folder / "..data")


class Pod:
    def __init__(self, image, work, user):
        documents = yaml.safe_load_all((ROOT / "deploy/kubernetes/sidecar.yaml").read_text())
        objects = {document["kind"]: document for document in documents}
        self.spec = objects["Deployment"]["spec"]["template"]["spec"]
        [self.sidecar] = self.spec["initContainers"]
        [config] = objects["ConfigMap"]["data"].items()
        # The bank of the sample, played in the pod.
        text = config[1].replace('preset = "qbank"', f'token_url = "{BANK}/token"')
        text = text.replace("https://api.qbankconnect.com", BANK)
        self.work, self.image, self.user = work, image, user
        self.secrets = {"qbank_client_id": "erp", "qbank_client_secret": "first"}
        publish(work / "bearer-proxy-config", {config[0]: text})
        publish(work / "bearer-proxy-secrets", self.secrets)
        (work / "bearer-proxy-run").mkdir()
        (work / "bearer-proxy-run").chmod(0o777)

    def start(self):
        podman("pod", "create", "--name", NAME, "--share", "net", "--network", "none")
        podman("pod", "start", NAME)
        infra = podman("pod", "inspect", "--format", "{{.InfraContainerID}}", NAME).stdout.strip()
        self.pid = podman("inspect", "--format", "{{.State.Pid}}", infra).stdout.strip()
        for ip in POD_IPS:
            self.network("ip", "address", "add", ip, "dev", "lo")
        bank = [sys.executable, __file__, "--bank"]
        self.bank = subprocess.Popen(["nsenter", "-t", self.pid, "-n", *bank])
        words = ["run", "--detach", "--pod", NAME, "--name", f"{NAME}-sidecar", "--pull=never"]
        context = self.sidecar["securityContext"]
        words += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
        words += ["--security-opt=no-new-privileges", "--cap-drop=all", "--memory", "64m"]
        words += ["--read-only"] if context["readOnlyRootFilesystem"] else []
        words += ["--user", self.user] if self.user else []
        for variable in self.sidecar["env"]:
            words += ["--env", f"{variable['name']}={variable['value']}"]
        for mount in self.sidecar["volumeMounts"]:
            mode = "ro" if mount.get("readOnly") else "rw"
            words += ["--volume", f"{self.work / mount['name']}:{mount['mountPath']}:{mode}"]
        podman(*words, self.image)

    def network(self, *words, check=True):
        done = subprocess.run(["nsenter", "-t", self.pid, "-n", *words], capture_output=True, text=True)
        if check and done.returncode != 0:
            self.fail(f"{' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def get(self, url, *options):
        """Status and body."""
        words = ["curl", "--silent", "--max-time", "5", "--write-out", "\n%{http_code}", *options, url]
        body, _, status = self.network(*words, check=False).rpartition("\n")
        return int(status or 0), body

    def verb(self, *words, code=0):
        done = podman("exec", f"{NAME}-sidecar", "/bearer-proxy", *words, check=False)
        if done.returncode != code:
            self.fail(f"{words} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def probe(self, which):
        probe = self.sidecar[which]["httpGet"]
        ports = {port["name"]: port["containerPort"] for port in self.sidecar["ports"]}
        for ip in POD_IPS:
            host = f"[{ip}]" if ":" in ip else ip
            url = f"http://{host}:{ports[probe['port']]}{probe['path']}"
            self.wait(lambda: self.get(url)[0] == 200, f"{which} at {url}")

    def wait(self, holds, what):
        end = time.monotonic() + 20
        while not holds():
            if time.monotonic() > end:
                self.fail(f"{what}: not within 20 s")
            time.sleep(0.1)
        print(f"  {what}: yes")

    def fail(self, why):
        print(podman("logs", f"{NAME}-sidecar", check=False).stderr)
        sys.exit(f"error: {why}")

    def stop(self):
        podman("stop", "--time", "25", f"{NAME}-sidecar")
        code = podman("inspect", "--format", "{{.State.ExitCode}}", f"{NAME}-sidecar").stdout.strip()
        if code != "0":
            self.fail(f"it ended with {code} on SIGTERM")
        print("  SIGTERM ends it with: 0")

    def remove(self):
        podman("pod", "rm", "--force", "--time", "0", NAME, check=False)
        if hasattr(self, "bank"):
            self.bank.kill()
            self.bank.wait()


def story(pod):
    pod.start()
    pod.probe("startupProbe")
    pod.probe("livenessProbe")
    for family in ("-4", "-6"):
        url = "http://localhost:6750/qbank/v1/balances/42"
        pod.wait(lambda: "first" in pod.get(url, family)[1], f"the app is served, curl {family} {url}")
    shown = pod.verb("status")
    print("  status:", shown.strip().splitlines()[-1].strip())
    if "usable" not in shown or "NOT USABLE" in shown:
        pod.fail(f"status: {shown}")
    for words in (["check", "--live"], ["token", "qbank", "--scopes", "balances.read"]):
        shown = pod.verb(*words)
        if "control.sock" not in shown:
            pod.fail(f"{words} did not ask the running instance: {shown}")
        print(f"  {words[0]}: asks the running instance")
    pod.verb("healthcheck")
    control = str(pod.work / "bearer-proxy-run/control.sock")
    status, _ = pod.get("http://localhost/refresh?credential=qbank", "-X", "POST", "--unix-socket", control)
    if status // 100 != 2:
        pod.fail(f"refresh answers {status}")
    print(f"  refresh: {status}")
    if pod.get("http://10.99.0.1:6751/status")[0] != 404:
        pod.fail("/status is open to the cluster")
    publish(pod.work / "bearer-proxy-secrets", pod.secrets | {"qbank_client_secret": "second"})
    pod.get("http://localhost/refresh?credential=qbank", "-X", "POST", "--unix-socket", control)
    pod.wait(lambda: "second" in pod.get(url)[1], "a rotated secret is in force")
    logs = podman("logs", f"{NAME}-sidecar").stderr
    # From the first token on: the token server of this test may start after the sidecar, as in a cluster.
    _, _, since = logs.partition('"token obtained"')
    warnings = [line for line in since.splitlines() if '"WARN"' in line or '"ERROR"' in line]
    if not since:
        pod.fail("the log names no token")
    if warnings:
        pod.fail(f"it warns: {warnings}")
    print("  warnings in the log: 0")
    pod.stop()


def main():
    if sys.argv[1] == "--bank":
        http.server.ThreadingHTTPServer(("127.0.0.1", 9000), Bank).serve_forever()
    pathlib.Path(CONF).write_text('[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n')
    # The user of the image, and one as OpenShift gives it.
    for user in (None, "1000690000:0"):
        print(f"-- as {user or 'the user of the image'}")
        work = pathlib.Path(tempfile.mkdtemp())
        work.chmod(0o755)
        pod = Pod(sys.argv[1], work, user)
        try:
            story(pod)
        finally:
            pod.remove()
            shutil.rmtree(work)
    os.unlink(CONF)


main()
