// A real authorization server, npm oidc-provider, for the stories of tests/it/oidc_provider.rs. Its clients
// come as JSON in argv, and with a folder of ca.pem, server.pem and server.key it speaks TLS and asks for client
// certificates; what happens is told on stdout, one word and its facts per line.
import { X509Certificate, hash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { EmbeddedJWK, calculateJwkThumbprint, jwtVerify } from 'jose';
import Provider from 'oidc-provider';

// A client that names a file gets a key pair: the private half is written there, as PEM, or with a kid as JWK.
function keyed({ key_file: file, kid, ...client }) {
  if (!file) return client;
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const jwk = kid && JSON.stringify({ ...privateKey.export({ format: 'jwk' }), kid, alg: 'ES256', use: 'sig' });
  writeFileSync(file, jwk ?? privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
  return { ...client, jwks: { keys: [{ ...publicKey.export({ format: 'jwk' }), kid }] } };
}

// A client that names a certificate is known by it.
function certified({ certificate_file: file, ...client }) {
  if (!file) return client;
  const certificate = new X509Certificate(readFileSync(file));
  const key = certificate.publicKey.export({ format: 'jwk' });
  return { ...client, jwks: { keys: [{ ...key, x5c: [certificate.raw.toString('base64')] }] } };
}

const clients = JSON.parse(process.argv[2]).map((client) => ({
  grant_types: ['client_credentials'],
  redirect_uris: [],
  response_types: [],
  scope: 'balances.read payments.write',
  ...keyed(certified(client)),
}));
const resourceIndicators = {
  enabled: true,
  getResourceServerInfo: (_context, resource) => ({
    scope: 'balances.read payments.write',
    audience: resource,
    accessTokenFormat: 'jwt',
  }),
};
const folder = process.argv[3];
const file = (name) => readFileSync(`${folder}/${name}`);
const server = folder
  ? createTlsServer({ ca: file('ca.pem'), cert: file('server.pem'), key: file('server.key'), requestCert: true, rejectUnauthorized: false })
  : createServer();
const peer = (context) => {
  const { raw } = context.socket.getPeerCertificate();
  return raw && new X509Certificate(raw);
};
const mTLS = {
  enabled: true,
  certificateBoundAccessTokens: true,
  selfSignedTlsClientAuth: true,
  tlsClientAuth: true,
  getCertificate: (context) => peer(context)?.toString(),
  certificateAuthorized: (context) => context.socket.authorized,
  certificateSubjectMatches: (context, _property, expected) => peer(context).checkHost(expected) !== undefined,
};
// An API below /api that takes tokens bound to a key, with a proof that has its nonce.
const nonce = randomBytes(16).toString('base64url');
const seen = new Set();
async function refusal(provider, issuer, request) {
  const [scheme, token] = (request.headers.authorization ?? '').split(' ');
  const known = scheme === 'DPoP' && (await provider.ClientCredentials.find(token));
  if (!known) return 'invalid_token';
  const proof = await jwtVerify(request.headers.dpop, EmbeddedJWK, { typ: 'dpop+jwt', maxTokenAge: '60 s' });
  const { jti, htm, htu, ath, nonce: given } = proof.payload;
  if (given !== nonce) return 'use_dpop_nonce';
  const right =
    htm === request.method &&
    htu === issuer + new URL(request.url, issuer).pathname &&
    ath === hash('sha256', token, 'base64url') &&
    known.jkt === (await calculateJwkThumbprint(proof.protectedHeader.jwk)) &&
    !seen.has(jti);
  seen.add(jti);
  return right ? undefined : 'invalid_dpop_proof';
}
async function api(provider, issuer, request, response) {
  let body = '';
  for await (const piece of request) body += piece;
  const error = await refusal(provider, issuer, request).catch(() => 'invalid_dpop_proof');
  const challenge = error && { 'www-authenticate': `DPoP algs="ES256 EdDSA", error="${error}"` };
  response.writeHead(error ? 401 : 200, { 'dpop-nonce': nonce, ...challenge }).end(body);
  console.log('api', error ?? 'served');
}

const certificateMethods = folder ? ['tls_client_auth', 'self_signed_tls_client_auth'] : [];
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address();
  const issuer = folder ? `https://localhost:${port}` : `http://127.0.0.1:${port}`;
  const provider = new Provider(issuer, {
    clients,
    scopes: ['balances.read', 'payments.write'],
    clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt', ...certificateMethods],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => true },
      introspection: { enabled: true },
      mTLS: folder ? mTLS : { enabled: false },
      resourceIndicators,
      revocation: { enabled: true },
    },
    ttl: { ClientCredentials: 4 },
  });
  provider.on('client_credentials.saved', () => console.log('issued'));
  provider.on('client_credentials.issued', () => console.log('issued'));
  provider.on('client_credentials.destroyed', () => console.log('destroyed'));
  provider.on('grant.error', (_context, error) => console.log('refused', error.message, error.error_detail));
  const serve = provider.callback();
  server.on('request', (request, response) =>
    request.url.startsWith('/api/') ? api(provider, issuer, request, response) : serve(request, response));
  console.log('up', issuer);
});
