// SPDX-License-Identifier: EUPL-1.2
// Runs the end-to-end tests in network and process namespaces of their own:
//   node run.mjs [--name PATTERN] [FILE...]
// Nothing leaves the network namespace, and every process in it ends with the run.

import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import path from 'node:path';

import { film, tone } from './lib/fixtures.mjs';
import { PEOPLE } from './lib/people.mjs';
import { TARGET } from './lib/paths.mjs';

const here = import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname);

function need(tool, debianPackage) {
  if (spawnSync('sh', ['-c', `command -v ${tool}`]).status !== 0) {
    throw new Error(`${tool} is missing; install Debian's package ${debianPackage} ("make test" does)`);
  }
}

const tools = { ip: 'iproute2', nft: 'nftables', unshare: 'util-linux', ffmpeg: 'ffmpeg', pulseaudio: 'pulseaudio', chromium: 'chromium', 'firefox-esr': 'firefox-esr' };
for (const [tool, debianPackage] of Object.entries(tools)) need(tool, debianPackage);

const args = process.argv.slice(2);
const options = ['--test', '--test-concurrency=1', '--test-reporter=spec'];
const files = [];
while (args.length > 0) {
  const arg = args.shift();
  if (arg === '--name') options.push(`--test-name-pattern=${args.shift()}`);
  else files.push(path.resolve(arg));
}
if (files.length === 0) {
  const folder = path.join(here, 'tests');
  files.push(...readdirSync(folder).filter((name) => name.endsWith('.test.mjs')).sort().map((name) => path.join(folder, name)));
}
for (const file of files) if (!existsSync(file)) throw new Error(`no such test file: ${file}`);

mkdirSync(TARGET, { recursive: true });
console.log('e2e: making films and tones');
for (const person of Object.values(PEOPLE)) await Promise.all([film(person), tone(person)]);

const namespaces = ['--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc'];
if (process.getuid() !== 0) namespaces.unshift('--map-root-user');
console.log(`e2e: running ${files.length} files in a network namespace; logs and pictures of failures in ${path.relative(process.cwd(), TARGET)}`);
const child = spawn('unshare', [...namespaces, path.join(here, '../inside.sh'), process.execPath, ...options, ...files], { stdio: ['ignore', 'inherit', 'inherit'] });
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal));
child.on('exit', (code, signal) => process.exit(signal ? 1 : code));
