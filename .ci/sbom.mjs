#!/usr/bin/env node
// SPDX-License-Identifier: EUPL-1.2
// Writes what each image's binary is made of: one CycloneDX list per image, from cargo's own graph of what is linked and, for the
// binary that carries the page, from npm's lock file. Same input, same bytes.
//   .ci/sbom.mjs TRIPLE CREATED FOLDER IMAGE...
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

const PACKAGES = { operator: 'operator', 'control-plane': 'control-plane', 'media-node': 'media-node', tools: 'plenum' };
const WITH_PAGE = 'control-plane';

const [triple, created, folder, ...images] = process.argv.slice(2);
if (images.length === 0 || images.some((image) => !PACKAGES[image])) {
  console.error(`sbom: say TRIPLE CREATED FOLDER and images of ${Object.keys(PACKAGES).join(', ')}`);
  process.exit(1);
}
const { packages, resolve } = JSON.parse(
  execFileSync('cargo', ['metadata', '--locked', '--format-version', '1', '--filter-platform', triple], {
    maxBuffer: 1 << 28,
    encoding: 'utf8',
  }),
);
const byId = new Map(packages.map((one) => [one.id, one]));
const nodes = new Map(resolve.nodes.map((node) => [node.id, node]));

const cache = join(process.env.CARGO_HOME ?? join(homedir(), '.cargo'), 'registry', 'cache');
const archives = new Map(
  (existsSync(cache) ? readdirSync(cache) : []).flatMap((index) =>
    readdirSync(join(cache, index)).map((file) => [file, join(cache, index, file)]),
  ),
);
const sha512 = (file) => createHash('sha512').update(readFileSync(file)).digest('hex');

/** What is linked into `root`: macros and build scripts run on the builder's machine and stay there. */
function linked(root) {
  const seen = new Set();
  const next = [root];
  while (next.length > 0) {
    const id = next.pop();
    if (seen.has(id)) continue;
    seen.add(id);
    for (const { pkg, dep_kinds: kinds } of nodes.get(id)?.deps ?? []) {
      const macro = byId.get(pkg).targets.some((target) => target.kind.includes('proc-macro'));
      if (!macro && kinds.some(({ kind }) => kind === null)) next.push(pkg);
    }
  }
  return seen;
}

const licences = (expression) => (expression ? [{ expression: expression.replaceAll('/', ' OR ') }] : undefined);

/** The name alone, without the mail address that some authors add. */
const authors = (list) =>
  list.length > 0 ? list.map((one) => ({ name: one.replace(/\s*<.*>$/, '') })) : undefined;

function crate(one) {
  const archive = one.source && archives.get(`${one.name}-${one.version}.crate`);
  return {
    type: 'library',
    'bom-ref': `cargo:${one.name}@${one.version}`,
    authors: authors(one.authors),
    name: one.name,
    version: one.version,
    hashes: archive ? [{ alg: 'SHA-512', content: sha512(archive) }] : undefined,
    licenses: licences(one.license),
    purl: `pkg:cargo/${one.name}@${one.version}`,
    externalReferences: one.repository ? [{ type: 'vcs', url: one.repository }] : undefined,
  };
}

function page() {
  const lock = JSON.parse(readFileSync('control-plane/web/package-lock.json', 'utf8'));
  return Object.entries(lock.packages)
    .filter(([path, one]) => path.startsWith('node_modules/') && !one.dev && !one.devOptional && !one.peer && !one.optional)
    .map(([path, one]) => {
      const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
      const [, digest] = /^sha512-(.+)$/.exec(one.integrity ?? '') ?? [];
      return {
        type: 'library',
        'bom-ref': `npm:${name}@${one.version}`,
        name,
        version: one.version,
        hashes: digest ? [{ alg: 'SHA-512', content: Buffer.from(digest, 'base64').toString('hex') }] : undefined,
        licenses: licences(one.license),
        purl: `pkg:npm/${name.replace('@', '%40')}@${one.version}`,
      };
    });
}

for (const image of images) {
  const root = packages.find((one) => one.source === null && one.name === PACKAGES[image]);
  const ids = linked(root.id);
  const ref = (id) => crateRef(byId.get(id));
  const crateRef = (one) => `cargo:${one.name}@${one.version}`;
  const graph = [...ids].map((id) => ({
    ref: ref(id),
    dependsOn: [...new Set((nodes.get(id)?.deps ?? []).map(({ pkg }) => pkg).filter((pkg) => ids.has(pkg)))].map(ref).sort(),
  }));
  const components = [...ids].filter((id) => id !== root.id).map((id) => crate(byId.get(id)));
  if (image === WITH_PAGE) {
    const parts = page();
    components.push(...parts);
    graph.push(...parts.map((part) => ({ ref: part['bom-ref'] })));
    graph.find(({ ref: of }) => of === crateRef(root)).dependsOn.push(...parts.map((part) => part['bom-ref']));
  }
  const order = (key) => (a, b) => (a[key] < b[key] ? -1 : a[key] > b[key] ? 1 : 0);
  components.sort(order('bom-ref'));
  graph.sort(order('ref'));
  const bom = {
    bomFormat: 'CycloneDX',
    specVersion: '1.6',
    version: 1,
    metadata: {
      timestamp: created,
      manufacturer: { name: 'Plenum' },
      component: {
        type: 'application',
        'bom-ref': crateRef(root),
        name: `plenum-${image}`,
        version: root.version,
        licenses: licences(root.license),
        purl: `pkg:oci/plenum-${image}@${root.version}`,
        properties: [{ name: 'plenum:target', value: triple }],
      },
    },
    components,
    dependencies: graph,
    compositions: [{ aggregate: 'complete', dependencies: [crateRef(root)] }],
  };
  // The number of a list follows from what it lists (RFC 9562 §5.8).
  const digest = createHash('sha256').update(JSON.stringify(bom)).digest('hex');
  const variant = ((parseInt(digest[16], 16) & 3) | 8).toString(16);
  const serial = [digest.slice(0, 8), digest.slice(8, 12), `8${digest.slice(13, 16)}`, variant + digest.slice(17, 20), digest.slice(20, 32)];
  const { bomFormat, specVersion, version, ...rest } = bom;
  const whole = { bomFormat, specVersion, serialNumber: `urn:uuid:${serial.join('-')}`, version, ...rest };
  writeFileSync(join(folder, `${image}.sbom.json`), `${JSON.stringify(whole, null, 1)}\n`);
}
