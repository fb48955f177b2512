"""A Key Vault, and Entra, an App Service's and an instance's identity before it, as a stub that
Microsoft's own Python client accepts: that client is the first to read the secret, where it is
installed.

Arguments: certificate and key (PEM) for localhost, the secret's value. Prints one line of JSON
that says where everything is, then obeys stdin: `put VALUE` makes VALUE the latest version.
"""

import json
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

CERTIFICATE, KEY = sys.argv[1:3]
TENANT, CLIENT = "11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000"
CLIENT_SECRET, FEDERATED, MANAGED = "an-entra-secret", "a-service-account-token", "an-identity-header"
TOKEN, CLI_TOKEN = "a-token-for-the-vault", "a-token-of-az"
RESOURCE = "https://vault.azure.net"
versions = [sys.argv[3]]


class Azure(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, content, **headers):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        asked = {name: values[0] for name, values in form.items()}
        url = urlparse(self.path)
        ours = url.path == f"/{TENANT}/oauth2/v2.0/token" and asked.get("client_id") == CLIENT
        wanted = asked.get("scope", "").split()[:1] == [RESOURCE + "/.default"]
        jwt = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        proven = asked.get("client_secret") == CLIENT_SECRET or (
            asked.get("client_assertion_type") == jwt and asked.get("client_assertion") == FEDERATED)
        if not (ours and wanted and asked.get("grant_type") == "client_credentials"):
            return self.answer(400, {"error": "invalid_request", "error_description": "AADSTS900144"})
        if not proven:
            return self.answer(401, {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."})
        self.answer(200, {"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": TOKEN})

    def do_GET(self):
        url = urlparse(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/msi/token":
            if self.headers.get("X-IDENTITY-HEADER") != MANAGED or query.get("resource") != RESOURCE:
                return self.answer(403, {"error": "forbidden"})
            ends = str(int(time.time()) + 3600)
            return self.answer(200, {"access_token": TOKEN, "expires_on": ends, "resource": RESOURCE, "token_type": "Bearer"})
        if url.path.startswith("/secrets/"):
            return self.secret(url.path.split("/")[2:])
        if url.path.endswith("/.well-known/openid-configuration"):
            root = f"https://localhost:{azure.server_port}/{TENANT}"
            return self.answer(200, {"authorization_endpoint": root + "/oauth2/v2.0/authorize", "issuer": root + "/v2.0", "token_endpoint": root + "/oauth2/v2.0/token"})
        self.answer(404, {"error": {"code": "NotFound", "message": "no such thing"}})

    def secret(self, path):
        if self.headers.get("Authorization") not in ("Bearer " + TOKEN, "Bearer " + CLI_TOKEN):
            challenge = f'Bearer authorization="https://localhost:{azure.server_port}/{TENANT}", resource="{RESOURCE}"'
            return self.answer(401, {"error": {"code": "Unauthorized", "message": "AKV10000"}}, WWW_Authenticate=challenge)
        name, version = path[0], (path + [""])[1] or str(len(versions))
        if name == "forbidden":
            return self.answer(403, {"error": {"code": "Forbidden", "message": "no permission", "innererror": {"code": "ForbiddenByRbac"}}})
        if name != "bank-secret" or not version.isdigit() or not 0 < int(version) <= len(versions):
            return self.answer(404, {"error": {"code": "SecretNotFound", "message": "not found"}})
        now = int(time.time())
        self.answer(200, {
            "value": versions[int(version) - 1],
            "id": f"https://localhost:{azure.server_port}/secrets/{name}/{version}",
            "attributes": {"enabled": True, "created": now, "updated": now, "recoveryLevel": "Recoverable"},
        })


def serve(wrap=None):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Azure)
    if wrap:
        server.socket = wrap(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(CERTIFICATE, KEY)
azure, plain = serve(tls.wrap_socket), serve()
VAULT = f"https://localhost:{azure.server_port}"


def accepted():
    """Whether Microsoft's client reads the secret here; nothing where it is not installed."""
    try:
        from azure.identity import ClientSecretCredential
        from azure.keyvault.secrets import SecretClient
    except ImportError:
        return None
    options = {"connection_verify": sys.argv[4], "verify_challenge_resource": False}
    who = ClientSecretCredential(TENANT, CLIENT, CLIENT_SECRET, authority=VAULT, disable_instance_discovery=True, **options)
    return SecretClient(VAULT, who, **options).get_secret("bank-secret").value == versions[-1]


print(json.dumps({
    "vault": VAULT, "plain": f"http://127.0.0.1:{plain.server_port}", "accepted": accepted(),
    "tenant": TENANT, "client": CLIENT, "secret": CLIENT_SECRET, "federated": FEDERATED,
    "managed": MANAGED, "az": CLI_TOKEN,
}), flush=True)
for line in sys.stdin:
    verb, _, rest = line.strip().partition(" ")
    if verb == "put":
        versions.append(rest)
        print("done", flush=True)
    else:
        break
