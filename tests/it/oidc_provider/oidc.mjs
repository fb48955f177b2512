// A real authorization server, npm oidc-provider, for the stories of tests/it/oidc_provider.rs. Its clients
// come as JSON in argv; what happens is told on stdout, one word and its facts per line.
import { generateKeyPairSync } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

// A client that names a file gets a key pair: the private half is written there.
function keyed({ key_file: file, ...client }) {
  if (!file) return client;
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  writeFileSync(file, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
  return { ...client, jwks: { keys: [publicKey.export({ format: 'jwk' })] } };
}

const clients = JSON.parse(process.argv[2]).map((client) => ({
  grant_types: ['client_credentials'],
  redirect_uris: [],
  response_types: [],
  scope: 'balances.read payments.write',
  ...keyed(client),
}));
const resourceIndicators = {
  enabled: true,
  getResourceServerInfo: (_context, resource) => ({
    scope: 'balances.read payments.write',
    audience: resource,
    accessTokenFormat: 'jwt',
  }),
};
const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients,
    scopes: ['balances.read', 'payments.write'],
    clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt'],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      introspection: { enabled: true },
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
