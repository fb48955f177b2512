"""AWS as moto plays it, with signatures verified; and who hands out credentials: STS for web
identities, an instance's metadata service (IMDSv2), a container's endpoint, SSO's portal.

Prints one line of JSON that says where everything is, then obeys stdin, one command a line:
`put VALUE` makes VALUE the current version of the secret, `end` or the end of stdin ends it.
"""

import datetime
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "false"

import boto3  # noqa: E402
from moto import settings  # noqa: E402
from moto.core.authorization import ActionAuthenticatorMixin  # noqa: E402
from moto.server import ThreadedMotoServer  # noqa: E402

WEB_IDENTITY = "a-federated-token"
CONTAINER = "a-container-token"
IMDS = "an-imds-token"
SSO = "an-sso-token"
SECRET = "prod/bank"


def allow(action, **whom):
    """A policy of one statement."""
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, **whom}]})


def temporary():
    """Credentials of the role, which end in an hour."""
    return owner.client("sts", endpoint_url=moto_url).assume_role(RoleArn=role_arn, RoleSessionName="it")["Credentials"]


class Issuer(BaseHTTPRequestHandler):
    """Hands out the role's credentials to whoever proves to be the one."""

    def log_message(self, *_):
        pass

    def answer(self, status, text="", kind="application/json", **headers):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        life = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        wanted = self.path == "/latest/api/token" and life is not None
        self.answer(200 if wanted else 404, IMDS, "text/plain", X_aws_ec2_metadata_token_ttl_seconds=life)

    def do_POST(self):
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        asked = {name: values[0] for name, values in form.items()}
        good = asked.get("Action") == "AssumeRoleWithWebIdentity" and asked.get("RoleArn") == role_arn
        if not good or asked.get("WebIdentityToken") != WEB_IDENTITY:
            return self.answer(403)
        found = temporary()
        fields = "".join(f"<{name}>{found[name]}</{name}>" for name in ("AccessKeyId", "SecretAccessKey", "SessionToken"))
        ends = found["Expiration"].strftime("%Y-%m-%dT%H:%M:%SZ")
        self.answer(200, f"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials>{fields}<Expiration>{ends}</Expiration></Credentials>
<AssumedRoleUser><Arn>{role_arn}</Arn><AssumedRoleId>a:it</AssumedRoleId></AssumedRoleUser>
</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>""", "text/xml")

    def do_GET(self):
        metadata = "/latest/meta-data/iam/security-credentials"
        path = self.path.split("?")[0]
        if path.startswith("/latest/") and self.headers.get("X-aws-ec2-metadata-token") != IMDS:
            return self.answer(401)
        if path.rstrip("/") in (metadata, metadata + "-extended"):
            return self.answer(200, "a-role", "text/plain")
        if path in (metadata + "/a-role", metadata + "-extended/a-role"):
            return self.answer(200, self.document())
        if path == "/container" and self.headers.get("Authorization") == CONTAINER:
            return self.answer(200, self.document())
        if path == "/federation/credentials" and self.headers.get("x-amz-sso_bearer_token") == SSO:
            found = temporary()
            return self.answer(200, json.dumps({"roleCredentials": {
                "accessKeyId": found["AccessKeyId"], "secretAccessKey": found["SecretAccessKey"],
                "sessionToken": found["SessionToken"], "expiration": int(found["Expiration"].timestamp() * 1000),
            }}))
        self.answer(404)

    def document(self):
        found = temporary()
        return json.dumps({
            "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": found["AccessKeyId"],
            "SecretAccessKey": found["SecretAccessKey"], "Token": found["SessionToken"],
            "LastUpdated": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "Expiration": found["Expiration"].strftime("%Y-%m-%dT%H:%M:%SZ"),
        })


moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
moto.start()
moto_url = "http://{}:{}".format(*moto.get_host_and_port())
REGION = "eu-central-1"
anybody = boto3.Session("setup", "setup", region_name=REGION)
iam = anybody.client("iam", endpoint_url=moto_url)


def user(name, action):
    """A user who may do this, and a key of theirs."""
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=allow(action, Resource="*"))
    return iam.create_access_key(UserName=name)["AccessKey"]


app, setup = user("app", "secretsmanager:GetSecretValue"), user("owner", "*")
owner = boto3.Session(setup["AccessKeyId"], setup["SecretAccessKey"], region_name=REGION)
trust = allow("sts:AssumeRole", Principal={"AWS": "*"})
role_arn = iam.create_role(RoleName="reader", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
reading = allow("secretsmanager:GetSecretValue", Resource="*")
iam.put_role_policy(RoleName="reader", PolicyName="p", PolicyDocument=reading)
manager = owner.client("secretsmanager", endpoint_url=moto_url)
manager.create_secret(Name=SECRET, SecretString=sys.argv[1])
manager.create_secret(Name="prod/binary", SecretBinary=b"\x00\xff")
# From now on each call is authenticated and authorised.
settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
ActionAuthenticatorMixin.request_count = 0
issuer = ThreadingHTTPServer(("127.0.0.1", 0), Issuer)
threading.Thread(target=issuer.serve_forever, daemon=True).start()
print(json.dumps({
    "aws": moto_url,
    "issuer": "http://{}:{}".format(*issuer.server_address),
    "role": role_arn,
    "id": app["AccessKeyId"],
    "key": app["SecretAccessKey"],
}), flush=True)
for line in sys.stdin:
    verb, _, rest = line.strip().partition(" ")
    if verb == "put":
        manager.put_secret_value(SecretId=SECRET, SecretString=rest)
        print("done", flush=True)
    else:
        break
