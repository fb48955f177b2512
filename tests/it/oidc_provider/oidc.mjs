// A real authorization server, npm oidc-provider, for the stories of tests/it/oidc_provider.rs. Its clients
// come as JSON in argv, and with a folder of ca.pem, server.pem and server.key it speaks TLS and asks for client
// certificates; what happens is told on stdout, one word and its facts per line.
import { X509Certificate, generateKeyPairSync } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import Provider from 'oidc-provider';

// A client that names a file gets a key pair: the private half is written there.
function keyed({ key_file: file, ...client }) {
  if (!file) return client;
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  writeFileSync(file, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
  return { ...client, jwks: { keys: [publicKey.export({ format: 'jwk' })] } };
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
  server.on('request', provider.callback());
  console.log('up', issuer);
});
