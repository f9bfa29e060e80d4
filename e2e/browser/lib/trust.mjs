// SPDX-License-Identifier: EUPL-1.2
// Makes Chromium trust the authority of an installation, as its administrators do: by policy.

import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const SETTINGS = '/etc/chromium';

/** Trusts certificates in PEM, in this mount namespace alone. Everything else stays refused. */
export function trust(pem) {
  if (!readFileSync('/proc/1/cmdline', 'utf8').includes('inside.sh')) {
    throw new Error('browsers are told whom to trust in namespaces of a test only: start it by inside.sh');
  }
  mkdirSync(SETTINGS, { recursive: true });
  const mount = spawnSync('mount', ['-t', 'tmpfs', 'tmpfs', SETTINGS], { encoding: 'utf8' });
  if (mount.status !== 0) throw new Error(`mount ${SETTINGS}: ${mount.stderr}`);
  const certificates = [...pem.matchAll(/-----BEGIN CERTIFICATE-----([^-]+)-----END CERTIFICATE-----/g)];
  if (certificates.length === 0) throw new Error('the authority holds no certificate');
  const policies = path.join(SETTINGS, 'policies/managed');
  mkdirSync(policies, { recursive: true });
  writeFileSync(path.join(policies, 'authority.json'), JSON.stringify({ CACertificates: certificates.map(([, base64]) => base64.replaceAll(/\s/g, '')) }));
}
