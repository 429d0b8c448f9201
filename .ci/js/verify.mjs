// node verify.mjs BUNDLE TRUSTED_ROOT PUBLIC_KEY_PEM ARTIFACT
//
// Verifies an Assay bundle with sigstore-js (@sigstore/verify) as shipped:
// thresholds of one log entry and one timestamp, and that the signed statement
// names the artifact's digest. Exits 1, with the verifier's code, on a refusal.
import { createHash, createPublicKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { bundleFromJSON } from '@sigstore/bundle';
import { TrustedRoot } from '@sigstore/protobuf-specs';
import { toSignedEntity, toTrustMaterial, Verifier } from '@sigstore/verify';

const [bundlePath, rootPath, pemPath, artifactPath] = process.argv.slice(2);
const json = (path) => JSON.parse(readFileSync(path, 'utf8'));

try {
  const publicKey = createPublicKey(readFileSync(pemPath));
  // The one key this verifier was given, whatever the bundle hints at.
  const keys = () => ({ publicKey, validFor: () => true });
  const bundle = bundleFromJSON(json(bundlePath));
  const verifier = new Verifier(toTrustMaterial(TrustedRoot.fromJSON(json(rootPath)), keys));
  verifier.verify(toSignedEntity(bundle));

  const statement = JSON.parse(bundle.content.dsseEnvelope.payload.toString('utf8'));
  const digest = createHash('sha256').update(readFileSync(artifactPath)).digest('hex');
  if (!statement.subject.some((s) => s.digest.sha256 === digest)) {
    throw Object.assign(new Error(`no subject has the digest ${digest}`), { code: 'SUBJECT_MISMATCH' });
  }
  console.log(`sigstore-js: verified ${artifactPath}`);
} catch (err) {
  console.error(`sigstore-js: ${err.code ?? err.name}: ${err.message}`);
  process.exitCode = 1;
}
