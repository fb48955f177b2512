"""Compares signed assertions and proofs of the program with those of google-auth, Authlib and joserfc.

Argument: the program. It asks a token server of this script for tokens, which keeps what it was sent.
"""

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs

import google.auth.crypt
from authlib.oauth2.rfc7523 import client_secret_jwt_sign, private_key_jwt_sign
from authlib.oauth2.rfc7523.client import JWTBearerClientAssertion
from google.oauth2 import service_account
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey, import_key

PROGRAM = os.path.abspath(sys.argv[1])
CLIENT = "erp client+%&"
SECRET = "a shared secret of more than sixty-four bytes, as HS512 wants it: +%&="
GOOGLE = "https://oauth2.googleapis.com/token"
NONCE = "a-nonce-of-this-server"


class TokenServer(BaseHTTPRequestHandler):
    """Keeps the last request, and issues a token unless it is told to refuse or the proof lacks the nonce."""

    form, proof, refusal = {}, None, None

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        fields = {name: values[0] for name, values in parse_qs(body, strict_parsing=True).items()}
        TokenServer.form, TokenServer.proof = fields, self.headers["DPoP"]
        asks = self.proof and part(self.proof, 1).get("nonce") != NONCE
        error = TokenServer.refusal or ("use_dpop_nonce" if asks else None)
        kind = "DPoP" if self.proof else "Bearer"
        answer = {"error": error} if error else {"access_token": "t", "token_type": kind, "expires_in": 60}
        self.send_response(400 if error else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("DPoP-Nonce", NONCE)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())


server = ThreadingHTTPServer(("127.0.0.1", 0), TokenServer)
Thread(target=server.serve_forever, daemon=True).start()
URL = f"http://127.0.0.1:{server.server_port}/token"
folder = tempfile.TemporaryDirectory()


def part(jwt, index):
    text = jwt.split(".")[index]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def file(name, text):
    path = os.path.join(folder.name, name)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        opened.write(text)
    return json.dumps(path)


def run(credential, *verb):
    """Runs a verb with a configuration of one credential."""
    file(
        "bearer-proxy.toml",
        f'version = 1\n[credentials.it]\ntoken_url = "{URL}"\n{credential}\n'
        '[upstreams.it]\nurl = "http://127.0.0.1:9"\ncredential = "it"\n'
        'routes = [{ name = "all", path = "/**", methods = ["GET"], scopes = ["b", "a"] }]\n',
    )
    ended = subprocess.run([PROGRAM, *verb], cwd=folder.name, capture_output=True, text=True, timeout=60)
    assert "panicked" not in ended.stderr, ended.stderr
    return ended


def ask(credential):
    ended = run(credential, "token", "it", "--scopes", "b a", "--reveal")
    assert ended.stdout.strip() == "t", ended.stderr


def same(mine, theirs):
    """Compares header and claims. Times and jti differ each time, and Google's client sends no jti."""
    assert part(mine, 0) == part(theirs, 0), (part(mine, 0), part(theirs, 0))
    claims, expected = part(mine, 1), part(theirs, 1)
    assert 0 <= time.time() - claims["iat"] < 60 and 60 <= claims["exp"] - claims["iat"] <= 3600, claims
    for one in (claims, expected):
        for name in ("iat", "exp", "jti"):
            assert one.pop(name, None) or name == "jti" and one is expected, name
    assert claims == expected, (claims, expected)


def google_service_account():
    key = RSAKey.generate_key(2048)
    info = {
        "type": "service_account",
        "project_id": "project",
        "private_key_id": "key-1",
        "private_key": key.as_pem(private=True).decode(),
        "client_email": "erp@project.iam.gserviceaccount.com",
        "client_id": "1042",
        "token_uri": GOOGLE,
    }
    path = file("google.json", json.dumps(info))
    signer = google.auth.crypt.RSASigner.from_service_account_info(info)
    for subject in (None, "user@example.com"):
        theirs = service_account.Credentials.from_service_account_info(info, scopes=["b", "a"], subject=subject)
        line = f'subject = "{subject}", ' if subject else ""
        ask(
            'preset = "google-service-account"\n'
            f'grant_assertion = {{ {line}key.file = {path}, audience = "{GOOGLE}" }}'
        )
        mine = TokenServer.form.pop("assertion")
        assert TokenServer.form == {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer"}, TokenServer.form
        assertion = theirs._make_authorization_grant_assertion().decode()
        same(mine, assertion)
        # RS256 signs the same text alike each time.
        signed, signature = mine.rsplit(".", 1)
        expected = base64.urlsafe_b64encode(signer.sign(signed)).rstrip(b"=").decode()
        assert signature == expected, "the signature is another one"
        google.auth.jwt.decode(mine, verify=False)


class Judge(JWTBearerClientAssertion):
    """Authlib's server side of RFC 7523."""

    def __init__(self, key, audience):
        super().__init__(leeway=0)
        self.key, self.audience, self.seen = key, audience, set()

    def get_audiences(self):
        return [self.audience]

    def validate_jti(self, _claims, jti):
        fresh = jti not in self.seen
        self.seen.add(jti)
        return fresh

    def judge(self, form):
        assert form["client_assertion_type"] == self.CLIENT_ASSERTION_TYPE and form["client_id"] == CLIENT
        mine = form["client_assertion"]
        _headers, claims = self.extract_assertion(mine)
        assert claims["iss"] == CLIENT
        # The library allows the algorithms that it recommends; here the key decides.
        self.verify_claims(jws_claims(mine, self.key))
        return mine


def jws_claims(jwt, key):
    return json.loads(jws.deserialize_compact(jwt, key, algorithms=[part(jwt, 0)["alg"]]).payload)


def client_assertions():
    client = f"client_id = {json.dumps(CLIENT)}\n"
    secret = file("secret", SECRET)
    for alg in ("HS256", "HS384", "HS512"):
        judge = Judge(OctKey.import_key(SECRET), URL)
        for _ in range(2):
            ask(f'{client}client_auth = "client_secret_jwt"\nsigning_algorithm = "{alg}"\nclient_secret.file = {secret}')
            mine = judge.judge(TokenServer.form)
        same(mine, client_secret_jwt_sign(OctKey.import_key(SECRET), CLIENT, URL, alg=alg))
    rsa = RSAKey.generate_key(2048)
    rows = [(f"{kind}{bits}", rsa) for kind in ("RS", "PS") for bits in (256, 384, 512)]
    curves = (("ES256", "P-256"), ("ES384", "P-384"), ("ES512", "P-521"))
    rows += [(alg, ECKey.generate_key(curve)) for alg, curve in curves]
    rows += [(alg, OKPKey.generate_key("Ed25519")) for alg in ("EdDSA", "Ed25519")]
    for alg, key in rows:
        judge = Judge(import_key(key.as_dict(private=False)), "https://issuer.example")
        jwk = {**key.as_dict(private=True), "kid": "key-1", "alg": alg, "use": "sig"}
        forms = [("key.pem", key.as_pem(private=True).decode(), ', key_id = "key-1"'), ("key.json", json.dumps(jwk), "")]
        for name, text, key_id in forms:
            credential = (
                f'{client}client_auth = "private_key_jwt"\nsigning_algorithm = "{alg}"\n'
                f"client_secret.file = {file(name, text)}\n"
                f'assertion = {{ audience = "https://issuer.example"{key_id} }}'
            )
            ask(credential)
            mine = judge.judge(TokenServer.form)
            header = {"kid": "key-1", "alg": alg}
            same(mine, private_key_jwt_sign(key, CLIENT, "https://issuer.example", alg=alg, header=header))
            # The thumbprint that `check --live` shows of a key that is refused.
            TokenServer.refusal = "invalid_client"
            said = run(credential, "check", "--live").stdout
            TokenServer.refusal = None
            assert f"key thumbprint {key.thumbprint()}," in said, said


PROOF_KEYS = [
    ("ES256", ECKey.generate_key("P-256")),
    ("EdDSA", OKPKey.generate_key("Ed25519")),
    ("Ed25519", OKPKey.generate_key("Ed25519")),
]


def proofs():
    for alg, key in PROOF_KEYS:
        for text in (None, key.as_pem(private=True).decode(), json.dumps(key.as_dict(private=True))):
            own = f"\ndpop.key.file = {file('dpop', text)}" if text else ""
            credential = (
                f"client_id = {json.dumps(CLIENT)}\nclient_secret.file = {file('secret', SECRET)}\n"
                f'dpop.algorithm = "{alg}"{own}'
            )
            ask(credential)
            header = part(TokenServer.proof, 0)
            jwk = header.pop("jwk")
            assert header == {"typ": "dpop+jwt", "alg": alg} and "d" not in jwk, (header, jwk)
            public = import_key(jwk)
            claims = jws_claims(TokenServer.proof, public)
            assert 0 <= time.time() - claims.pop("iat") < 60 and len(claims.pop("jti")) >= 16
            assert claims == {"htm": "POST", "htu": URL, "nonce": NONCE}, claims
            if text:
                assert public.thumbprint() == key.thumbprint()
                TokenServer.refusal = "invalid_dpop_proof"
                said = run(credential, "check", "--live").stdout
                TokenServer.refusal = None
                assert f"jkt {key.thumbprint()}," in said, said


for check in (google_service_account, client_assertions, proofs):
    check()
    print(f"{check.__name__.replace('_', ' ')}: as the others make and verify them")
