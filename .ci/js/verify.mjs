// node verify.mjs 3|4 --bundle FILE --trusted-root FILE
//      (--key PEM | --certificate-identity SAN --certificate-oidc-issuer URL)
//      --type slsaprovenance1|cyclonedx ARTIFACT
//
// Verifies an Assay bundle with @sigstore/verify as shipped, of version 3 or 4, with its
// default thresholds: one log entry, one timestamp and, for a certificate, one SCT. The
// flags are cosign's. On top it checks what that library leaves to its callers: which
// identity, which predicate type, which artifact. Exits 1, with the verifier's code, on
// a refusal, and 2 where it could not get so far.
import { createHash, createPublicKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { TrustedRoot } from '@sigstore/protobuf-specs';

const predicateTypes = {
  slsaprovenance1: 'https://slsa.dev/provenance/v1',
  cyclonedx: 'https://cyclonedx.org/bom',
};
const string = { type: 'string' };

function options() {
  const { values: o, positionals: [version, artifact, ...rest] } = parseArgs({
    allowPositionals: true,
    options: {
      bundle: string, 'trusted-root': string, key: string, type: string,
      'certificate-identity': string, 'certificate-oidc-issuer': string,
    },
  });
  const identity = o['certificate-identity'], issuer = o['certificate-oidc-issuer'];
  if (!['3', '4'].includes(version) || !artifact || rest.length || !o.bundle || !o['trusted-root'] || !predicateTypes[o.type] ||
    !(o.key ? !identity && !issuer : identity && issuer)) {
    throw new Error('wrong arguments');
  }
  return { version, artifact, bundle: o.bundle, root: o['trusted-root'], key: o.key, identity, issuer, type: predicateTypes[o.type] };
}

const json = (path) => JSON.parse(readFileSync(path, 'utf8'));
const refuse = (code, message) => Object.assign(new Error(message), { code });

async function verify(o) {
  const { bundleFromJSON } = await import(`bundle${o.version}`);
  const { toSignedEntity, toTrustMaterial, Verifier } = await import(`verify${o.version}`);

  // The one key this verifier was given, whatever the bundle hints at. Without one it is
  // given none, so that only a certificate can count.
  const publicKey = o.key && createPublicKey(readFileSync(o.key));
  const keys = () => {
    if (!publicKey) throw refuse('PUBLIC_KEY_ERROR', 'a key, want a certificate');
    return { publicKey, validFor: () => true };
  };
  const bundle = bundleFromJSON(json(o.bundle));
  const verifier = new Verifier(toTrustMaterial(TrustedRoot.fromJSON(json(o.root)), keys));
  // The name in the policy is a regular expression, and not anchored.
  const policy = o.identity && {
    subjectAlternativeName: `^${o.identity.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}$`,
    extensions: { issuer: o.issuer },
  };
  const signer = verifier.verify(toSignedEntity(bundle), policy);
  if (publicKey && !signer.key.equals(publicKey)) throw refuse('PUBLIC_KEY_ERROR', 'a certificate, want the key');

  const statement = JSON.parse(bundle.content.dsseEnvelope.payload.toString('utf8'));
  if (statement.predicateType !== o.type) throw refuse('PREDICATE_MISMATCH', `predicate type ${statement.predicateType}, want ${o.type}`);
  const digest = createHash('sha256').update(readFileSync(o.artifact)).digest('hex');
  if (!statement.subject.some((s) => s.digest.sha256 === digest)) throw refuse('SUBJECT_MISMATCH', `no subject has the digest ${digest}`);
}

let o;
try {
  o = options();
  readFileSync(o.bundle), readFileSync(o.root), readFileSync(o.artifact);
} catch (err) {
  console.error(`verify.mjs: ${err.message}`);
  process.exit(2);
}
try {
  await verify(o);
  console.log(`@sigstore/verify ${o.version}: verified ${o.artifact}`);
} catch (err) {
  console.error(`@sigstore/verify ${o.version}: ${err.code ?? err.name}: ${err.message}`);
  process.exitCode = err.code === 'ERR_MODULE_NOT_FOUND' ? 2 : 1;
}
