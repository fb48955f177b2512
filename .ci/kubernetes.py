"""Rules for deploy/kubernetes that no schema knows: the sidecar passes the Pod Security Standard
"restricted" by itself, and nothing decides for the app beside it."""

import pathlib
import sys

import yaml

FILE = pathlib.Path(__file__).parent.parent / "deploy/kubernetes/sidecar.yaml"
SIDECAR = "bearer-proxy"
problems = []


def check(holds, what):
    if not holds:
        problems.append(what)


objects = {obj["kind"]: obj for obj in yaml.safe_load_all(FILE.read_text())}
pod = objects["Deployment"]["spec"]["template"]["spec"]
[sidecar] = [one for one in pod["initContainers"] if one["name"] == SIDECAR]

# Settings of the pod hold for all its containers and volumes.
for key in ("securityContext", "automountServiceAccountToken", "hostNetwork", "dnsPolicy", "shareProcessNamespace"):
    check(key not in pod, f"spec.{key} decides for the app")

context = sidecar["securityContext"]
check(context.get("runAsNonRoot") is True, "runAsNonRoot")
check(context.get("allowPrivilegeEscalation") is False, "allowPrivilegeEscalation")
check(context.get("capabilities") == {"drop": ["ALL"]}, "capabilities")
check(context.get("seccompProfile", {}).get("type") == "RuntimeDefault", "seccompProfile")
check(context.get("readOnlyRootFilesystem") is True, "readOnlyRootFilesystem")
check(("runAsUser" in context) == ("runAsGroup" in context), "runAsUser without runAsGroup has group 0")
check(sidecar.get("terminationMessagePolicy") == "FallbackToLogsOnError", "terminationMessagePolicy")

# A secret that everybody in the container may read is mounted in no other container.
ours = {mount["name"] for mount in sidecar["volumeMounts"]}
others = [one for one in pod["containers"] + pod["initContainers"] if one is not sidecar]
theirs = {mount["name"] for one in others for mount in one.get("volumeMounts", [])}
check(not ours & theirs, f"volumes of the app too: {ours & theirs}")
for mount in sidecar["volumeMounts"]:
    check("subPath" not in mount, f"{mount['name']} with subPath does not follow a rotation")
names = {volume["name"] for volume in pod["volumes"]}
check(ours <= names, f"volumes that are not there: {ours - names}")
refers = {volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}
check(refers == {objects["ConfigMap"]["metadata"]["name"]}, "the ConfigMap has another name")

for problem in problems:
    print(f"error: {FILE.name}: {problem}")
sys.exit(bool(problems))
