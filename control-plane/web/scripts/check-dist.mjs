// SPDX-License-Identifier: EUPL-1.2
// Gate on what a browser loads first: size, nothing inline, nothing from another host.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

const LIMIT = 300_000;
const dist = new URL('../dist/', import.meta.url).pathname;
const files = readdirSync(dist, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => join(entry.parentPath, entry.name));
const faults = [];
let total = 0;
for (const file of files) {
  const content = readFileSync(file);
  const size = gzipSync(content, { level: 9 }).length;
  total += size;
  console.log(`${String(size).padStart(8)}  ${file.slice(dist.length)}`);
  const text = content.toString('utf8');
  if (file.endsWith('.html')) {
    if (/<script(?![^>]*\ssrc=)/.test(text) || /<style|\sstyle=|\son[a-z]+=/.test(text)) {
      faults.push(`${file}: inline script or style, which the Content-Security-Policy forbids`);
    }
    if (/(src|href)="(https?:)?\/\//.test(text)) {
      faults.push(`${file}: loads from another host`);
    }
  }
  if (file.endsWith('.css') && /@import|url\(\s*['"]?(https?:)?\/\//.test(text)) {
    faults.push(`${file}: loads from another host`);
  }
  if (file.endsWith('.js') && /\beval\(|new Function\(/.test(text)) {
    faults.push(`${file}: evaluates text, which the Content-Security-Policy forbids`);
  }
}
console.log(`${String(total).padStart(8)}  everything, compressed; at most ${LIMIT}`);
if (files.length === 0) {
  faults.push('dist/ is empty: npm run build');
}
if (total > LIMIT) {
  faults.push(`the first load is ${total} bytes, more than ${LIMIT}`);
}
if (/"resolved":/.test(readFileSync(new URL('../package-lock.json', import.meta.url), 'utf8'))) {
  faults.push('package-lock.json records download addresses');
}
for (const fault of faults) {
  console.error(`error: ${fault}`);
}
process.exitCode = faults.length === 0 ? 0 : 1;
