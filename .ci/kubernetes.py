"""Checks of deploy/kubernetes and deploy/helm: kubernetes.py PROGRAM.

Each object is valid, strictly, in each supported version of Kubernetes. A pod of ours passes the Pod Security
Standard "restricted", our container does so by itself, and nothing decides for the app beside it. PROGRAM
accepts each configuration. What the chart must refuse, it refuses."""

import copy
import functools
import pathlib
import shutil
import subprocess
import sys
import tempfile

import helm_python as helm
import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).parent.parent
PROGRAM = pathlib.Path(sys.argv[1]).resolve()
VERSIONS = [f"1.{minor}" for minor in range(29, 38)]
# Native sidecars are known from the first of these on; the others are objects of operators.
FOREIGN = {"PodMonitor", "PrometheusRule", "ExternalSecret", "SecretProviderClass"}
OURS = "bearer-proxy"
problems = []
counts = {"objects": 0, "containers": 0, "configurations": 0, "refusals": 0}


def check(holds, where, what):
    if not holds:
        problems.append(f"{where}: {what}")


def pod_of(obj):
    spec = obj.get("spec", {})
    if obj["kind"] == "Pod":
        return spec
    if obj["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return spec.get("template", {}).get("spec")


def validate(where, obj):
    counts["objects"] += 1
    if obj["kind"] in FOREIGN:
        check(obj.get("metadata", {}).get("name") and obj.get("spec"), where, "no name or no spec")
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(obj, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            check(False, where, f"Kubernetes {version}: {error.message} at {list(error.path)}")
            return


def check_container(where, pod, ours):
    counts["containers"] += 1
    context = ours["securityContext"]
    check(context.get("runAsNonRoot") is True, where, "runAsNonRoot")
    check(context.get("allowPrivilegeEscalation") is False, where, "allowPrivilegeEscalation")
    check(context.get("capabilities") == {"drop": ["ALL"]}, where, "capabilities")
    check(context.get("seccompProfile", {}).get("type") == "RuntimeDefault", where, "seccompProfile")
    check(context.get("readOnlyRootFilesystem") is True, where, "readOnlyRootFilesystem")
    check("runAsUser" not in context, where, "OpenShift chooses the user")
    check(ours.get("terminationMessagePolicy") == "FallbackToLogsOnError", where, "terminationMessagePolicy")
    check("memory" in ours["resources"]["limits"], where, "memory limit")

    # A secret that everybody in the container may read is mounted in no other container.
    mine = {mount["name"] for mount in ours["volumeMounts"]}
    others = [one for one in pod["containers"] + pod.get("initContainers", []) if one is not ours]
    theirs = {mount["name"] for one in others for mount in one.get("volumeMounts", [])}
    check(not mine & theirs, where, f"volumes of the app too: {mine & theirs}")
    for mount in ours["volumeMounts"]:
        check("subPath" not in mount, where, f"{mount['name']} with subPath does not follow a rotation")
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    check(mine <= volumes.keys(), where, f"volumes that are not there: {mine - volumes.keys()}")
    for name in mine & volumes.keys():
        kinds = volumes[name].keys() - {"name"}
        check(kinds <= {"configMap", "secret", "csi", "emptyDir"}, where, f"{name} is {kinds}")
        if "secret" in volumes[name]:
            check(volumes[name]["secret"]["defaultMode"] == 0o444, where, f"{name} cannot be read")
    check("hostPort" not in str(ours["ports"] if "ports" in ours else ""), where, "hostPort")


def check_pod(where, obj, pod):
    containers = pod["containers"] + pod.get("initContainers", [])
    ours = [one for one in containers if one["name"].startswith(OURS) or one["name"] == "check"]
    if not ours:
        check(OURS not in str(pod), where, "a part of the sidecar")
        return
    for one in ours:
        check_container(where, pod, one)
    for key in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        check(key not in pod, where, f"spec.{key}")
    if len(containers) == len(ours):
        check(pod["securityContext"]["runAsNonRoot"] is True, where, "runAsNonRoot of the pod")
        check("fsGroup" not in pod["securityContext"], where, "fsGroup")
        return
    # Settings of the pod hold for all its containers and volumes.
    for key in ("securityContext", "automountServiceAccountToken", "dnsPolicy"):
        check(key not in pod, where, f"spec.{key} decides for the app")
    first = (pod.get("initContainers") or pod["containers"])[0]
    check(first["name"] == OURS, where, "the sidecar does not come first")
    native = first in pod.get("initContainers", [])
    check(native == (first.get("restartPolicy") == "Always"), where, "restartPolicy of the sidecar")
    check(native or "wait" in first["lifecycle"]["postStart"]["exec"]["command"], where, "nothing waits for it")
    check(native or obj["kind"] not in ("Job", "CronJob"), where, "the Job would not end")
    check("readinessProbe" not in first, where, "the readiness of the app would depend on the bank")


def check_configuration(where, name, text):
    counts["configurations"] += 1
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / name
        file.write_text(text)
        done = subprocess.run(
            [PROGRAM, "check", "--config", file], capture_output=True, text=True,
            env={"SQR_CLIENT_ID": "ci", "PATH": "/usr/bin:/bin"},
        )
        check(done.returncode == 0, where, f"the program refuses {name}:\n{text}{done.stdout}{done.stderr}")


def check_objects(where, objects):
    objects = [obj for obj in objects if obj]
    names = [(obj["kind"], obj["metadata"]["name"]) for obj in objects]
    check(len(names) == len(set(names)), where, f"two objects of one name: {names}")
    for obj in objects:
        at = f"{where}: {obj['kind']} {obj['metadata']['name']}"
        validate(at, obj)
        if pod := pod_of(obj):
            check_pod(at, obj, pod)
        for name, text in obj.get("data", {}).items() if obj["kind"] == "ConfigMap" else ():
            if name.endswith(".toml"):
                check_configuration(at, name, text)
    return {name: obj for name, obj in zip(names, objects)}


def plain_files():
    folder = ROOT / "deploy/kubernetes"
    for file in sorted([*folder.glob("*.yaml"), *folder.glob("secrets/*.yaml")]):
        objects = check_objects(file.name, yaml.safe_load_all(file.read_text()))
        maps = {name for kind, name in objects if kind == "ConfigMap"} or {"erp-bearer-proxy"}
        pods = [pod for pod in map(pod_of, objects.values()) if pod]
        refers = {volume["configMap"]["name"] for pod in pods for volume in pod["volumes"] if "configMap" in volume}
        check(refers <= maps, file.name, f"no ConfigMap {refers - maps}")


def kustomize():
    if not shutil.which("kubectl"):
        print("skipped: kubectl is not installed, and with it kustomize")
        return
    done = subprocess.run(["kubectl", "kustomize", ROOT / "deploy/kubernetes/example"], capture_output=True, text=True)
    if done.returncode != 0:
        check(False, "kustomize", done.stderr)
        return
    objects = check_objects("kustomize", yaml.safe_load_all(done.stdout))
    for kind, name in (("Deployment", "erp"), ("Job", "migrate")):
        containers = pod_of(objects[kind, name]).get("initContainers", [])
        check(OURS in [one["name"] for one in containers], "kustomize", f"{kind} {name} has no sidecar")
    check("initContainers" not in pod_of(objects["Deployment", "other"]), "kustomize", "an app that did not ask for it")
    # The piece and the whole are the same.
    [whole] = [obj for obj in yaml.safe_load_all((ROOT / "deploy/kubernetes/sidecar.yaml").read_text())
               if obj["kind"] == "Deployment"]
    check(pod_of(objects["Deployment", "erp"])["initContainers"][0] == pod_of(whole)["initContainers"][0],
          "kustomize", "the component and sidecar.yaml differ")


def load_all(rendered):
    texts = [text for name, text in rendered.items() if name.endswith(".yaml")]
    return [obj for text in texts for obj in yaml.safe_load_all(text)]


def merged(base, changes):
    """Values with changes of nested keys; `None` removes a key."""
    base = copy.deepcopy(base)
    for key, value in changes.items():
        if value is None:
            base.pop(key, None)
        elif isinstance(value, dict) and isinstance(base.get(key), dict):
            base[key] = merged(base[key], value)
        else:
            base[key] = value
    return base


def chart():
    folder = ROOT / "deploy/helm/bearer-proxy"
    loaded = helm.Chart.load(folder)
    render = functools.partial(loaded.render, name="bp", namespace="bank")
    values = {file.name: yaml.safe_load(file.read_text()) for file in sorted(folder.glob("ci/*.yaml"))}
    rendered = {name: render(given) for name, given in values.items()}
    objects = {name: check_objects(name, load_all(one)) for name, one in rendered.items()}
    for name, one in rendered.items():
        notes = one[f"{OURS}/templates/NOTES.txt"]
        check(notes.count("/bearer-proxy status") == 1, name, f"NOTES: {notes}")
        lint = helm.lint(folder, values=values[name], strict=True)
        check(not lint.get("errors"), name, f"lint: {lint}")

    plain = objects["gateway-values.yaml"]
    kinds = {"ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "Pod"}
    check({kind for kind, _ in plain} == kinds, "gateway", f"objects: {sorted(plain)}")
    deployment = plain["Deployment", "bp-bearer-proxy"]["spec"]
    check(deployment["replicas"] == 2, "gateway", "replicas")
    pod = deployment["template"]["spec"]
    check(pod["terminationGracePeriodSeconds"] == 35, "gateway", "grace period")
    check(pod["automountServiceAccountToken"] is False, "gateway", "a token of the cluster that nothing needs")
    labels = deployment["template"]["metadata"]["labels"]
    for kind, where in (("Service", "selector"), ("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        selector = plain[kind, "bp-bearer-proxy"]["spec"][where]
        selector = selector.get("matchLabels", selector)
        check(selector.items() <= labels.items(), "gateway", f"{kind} selects {selector}")
        test = plain["Pod", "bp-bearer-proxy-test"]["metadata"]["labels"]
        check(not selector.items() <= test.items(), "gateway", f"{kind} selects the pod of the test too")
    check(plain["Service", "bp-bearer-proxy"]["spec"]["ipFamilyPolicy"] == "PreferDualStack", "gateway", "one family")
    config = plain["ConfigMap", "bp-bearer-proxy"]["data"]["bearer-proxy.toml"]
    for line in ('ready = "started"', 'lame_duck = "5s"'):
        check(line in config.splitlines(), "gateway", f"no {line} in the configuration")
    check('"bp-bearer-proxy.bank.svc"' in config, "gateway", "the Service's name is no allowed host")
    args = plain["Pod", "bp-bearer-proxy-test"]["spec"]["containers"][0]["args"]
    check(args == ["check", "--live"], "gateway", f"test: {args}")

    one = objects["one-live-token-values.yaml"]
    check(one["Deployment", "bp-bearer-proxy"]["spec"]["strategy"] == {"type": "Recreate"}, "one token", "strategy")
    check(("PodDisruptionBudget", "bp-bearer-proxy") not in one, "one token", "a budget that no node can be drained with")
    args = one["Pod", "bp-bearer-proxy-test"]["spec"]["containers"][0]["args"]
    check(args == ["check"], "one token", f"the test ends the token in use: {args}")

    # Replicas of one live token, once they share it. The program of this test may lack the feature.
    shared = values["one-live-token-values.yaml"]
    shared = merged(shared, {"gateway": {"replicas": 3}, "config": "[share]\nstore = \"redis\"\n" + shared["config"].replace(
        "[upstreams.core]", "share = true\n[upstreams.core]")})
    named = merged(shared, {"config": None, "allowAnyone": None, "existingConfigMap": {"name": "x"}, "sharesTokens": True})
    for given in (shared, named):
        three = {(one["kind"], one["metadata"]["name"]): one for one in load_all(render(given))}
        deployment = three["Deployment", "bp-bearer-proxy"]["spec"]
        check((deployment["replicas"], deployment["strategy"]["type"]) == (3, "RollingUpdate"), "shared token", "one replica")
        check(("PodDisruptionBudget", "bp-bearer-proxy") in three, "shared token", "no budget")
        args = three["Pod", "bp-bearer-proxy-test"]["spec"]["containers"][0]["args"]
        check(args == ["check"], "shared token", f"the test ends the token in use: {args}")

    # Through a Secret: its rights are those of the service account, and for this Secret alone.
    kept = merged(shared, {"config": shared["config"].replace("\"redis\"", "\"kubernetes\""),
                           "share": {"kubernetes": {"enabled": True, "secret": "core-tokens"}},
                           "gateway": {"serviceAccount": {"create": True}}})
    secret = {(one["kind"], one["metadata"]["name"]): one for one in load_all(render(kept)) if one}
    for (kind, name), one in secret.items():
        validate(f"tokens in a Secret: {kind} {name}", one)
    check("data" not in secret["Secret", "core-tokens"], "tokens in a Secret", "an upgrade would replace the tokens")
    [rule] = secret["Role", "bp-bearer-proxy-tokens"]["rules"]
    check(rule == {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["core-tokens"],
                   "verbs": ["get", "patch", "watch"]}, "tokens in a Secret", f"rights: {rule}")
    binding = secret["RoleBinding", "bp-bearer-proxy-tokens"]
    check(binding["roleRef"]["name"] == "bp-bearer-proxy-tokens", "tokens in a Secret", "another role")
    pod = pod_of(secret["Deployment", "bp-bearer-proxy"])
    check([one["name"] for one in binding["subjects"]] == [pod["serviceAccountName"]], "tokens in a Secret", "for whom")
    check(pod["automountServiceAccountToken"] is True, "tokens in a Secret", "no token of the service account")
    check("6443" in str(secret["NetworkPolicy", "bp-bearer-proxy"]), "tokens in a Secret", "no way to the API server")

    full = objects["full-values.yaml"]
    rules = full["PrometheusRule", "bank-gateway"]["spec"]
    check(rules == yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text()), "full", "rules differ")
    [board] = full["ConfigMap", "bank-gateway-dashboard"]["data"].values()
    check(board.strip() == (ROOT / "deploy/grafana/bearer-proxy.json").read_text().strip(), "full", "dashboard differs")
    check("5353" in str(full["NetworkPolicy", "bank-gateway"]), "full", "OpenShift's DNS")

    refuse(render, values["gateway-values.yaml"])
    with tempfile.TemporaryDirectory() as out:
        check(pathlib.Path(helm.package(folder, destination=out)).stat().st_size < 200_000, "package", "too large")


def refuse(render, good):
    bank = good["config"].replace("[clients.erp]", "[other]")
    cases = [
        ("values that do not exist", {"replicas": 2}, "replicas"),
        ("values below gateway that do not exist", {"gateway": {"replica": 2}}, "replica"),
        ("a secret in the values", {"secrets": {"qbank": {"client_secret": "s"}}}, "client_secret"),
        ("half a replica", {"gateway": {"replicas": 1.5}}, "integer"),
        ("a mode that does not exist", {"mode": "injector"}, "mode"),
        ("a digest cut short", {"image": {"digest": "sha256:00"}}, "digest"),
        ("no image", {"image": {"repository": ""}}, "image.repository is missing"),
        ("no configuration", {"config": None}, "config is missing"),
        ("two configurations", {"existingConfigMap": {"name": "x"}}, "two configurations"),
        ("a gateway without clients", {"config": bank}, "no [clients]"),
        ("tables of the chart", {"config": good["config"] + "[admin]\n"}, "which the chart writes"),
        ("a version", {"config": "version = 1\n" + good["config"]}, "which the chart writes"),
        ("replicas at a bank with one live token", {"oneLiveToken": True}, "more than one replica"),
        ("a shared token that is a comment",
         {"oneLiveToken": True, "config": good["config"] + "[share]\n# share = true\n"}, "more than one replica"),
        ("a word for what can be seen", {"sharesTokens": True}, "is for existingConfigMap"),
        ("rights for all pods of the namespace", {"share": {"kubernetes": {"enabled": True}}}, "service account default"),
        ("a Secret for sidecars", {"mode": "sidecar", "share": {"kubernetes": {"enabled": True}}}, "for mode gateway"),
        ("a store that the chart does not know", {"share": {"redis": {}}}, "redis"),
        ("a name that no Secret has", {"share": {"kubernetes": {"secret": "Tokens"}}}, "secret"),
        ("a rolling update at a bank with one live token",
         {"oneLiveToken": True, "gateway": {"replicas": 1, "strategy": {"type": "RollingUpdate"}}}, "rolling update"),
        ("a secret from two places",
         {"secrets": {"qbank": {"secretName": "x", "csi": {"driver": "y"}}}}, "exactly one of"),
        ("a secret from nowhere", {"secrets": {"qbank": {"secretName": None}}}, "exactly one of"),
    ]
    for what, changes, words in cases:
        counts["refusals"] += 1
        try:
            render(merged(good, changes))
        except helm.HelmError as error:
            check(words in str(error), "refusal", f"{what}: {error}")
        else:
            check(False, "refusal", f"{what} is accepted")


def parent_chart():
    """The example of an app's chart that includes the sidecar."""
    with tempfile.TemporaryDirectory() as out:
        work = pathlib.Path(out) / "erp"
        shutil.copytree(ROOT / "deploy/helm/examples/erp", work)
        shutil.copytree(ROOT / "deploy/helm/bearer-proxy", work / "charts/bearer-proxy")
        loaded = helm.Chart.load(work)
        for form in ("native", "classic"):
            changes = {"bearer-proxy": {"sidecar": {"form": form}}}
            objects = check_objects(f"erp, {form}", load_all(loaded.render(changes, name="erp", namespace="bank")))
            pod = pod_of(objects["Deployment", "erp"])
            check(("initContainers" in pod) == (form == "native"), f"erp, {form}", "in the wrong place")
            check(("ConfigMap", "erp-bearer-proxy") in objects, f"erp, {form}", "no configuration")
            monitor = objects["PodMonitor", "erp-bearer-proxy"]["spec"]["selector"]["matchLabels"]
            labels = objects["Deployment", "erp"]["spec"]["template"]["metadata"]["labels"]
            check(monitor.items() <= labels.items(), f"erp, {form}", "the PodMonitor misses the pod")
            check(("Service", "erp-bearer-proxy") not in objects, f"erp, {form}", "parts of a gateway")


plain_files()
kustomize()
chart()
parent_chart()
for problem in problems:
    print(f"error: {problem}")
print(", ".join(f"{count} {what}" for what, count in counts.items()))
sys.exit(bool(problems))
