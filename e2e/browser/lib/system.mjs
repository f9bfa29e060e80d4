// SPDX-License-Identifier: EUPL-1.2
// The system under test: `plenum up` on a copy of the quickstart's manifests, inside the run's namespaces.

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, createWriteStream, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { until } from './media.mjs';
import { BINARIES, REPOSITORY, TARGET } from './paths.mjs';

const PLENUM = path.join(BINARIES, 'plenum');
export const HOST = '127.0.0.1:7880';
export const ORIGIN = `http://${HOST}`;

export class System {
  /** Starts the quickstart, changed by `edit(folder)`, and waits until it has printed its conferences. */
  static async start(scenario, { edit = () => {}, args = [] } = {}) {
    if (!existsSync(PLENUM)) throw new Error(`${PLENUM} is missing: build it first ("make test" does)`);
    mkdirSync(path.join(TARGET, 'logs'), { recursive: true });
    const folder = mkdtempSync(path.join(TARGET, `${scenario}-`));
    const manifests = path.join(folder, 'manifests');
    cpSync(path.join(REPOSITORY, 'docs/examples/quickstart'), manifests, { recursive: true });
    const self = Object.assign(new System(), { scenario, folder, manifests, state: path.join(folder, 'state') });
    edit(self);
    self.log = path.join(TARGET, 'logs', `${scenario}.plenum.log`);
    const log = createWriteStream(self.log);
    const started = Date.now();
    const child = spawn(PLENUM, ['up', '-f', manifests, '--state-dir', self.state, '--output', 'json', ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      cwd: folder,
    });
    self.child = child;
    self.ended = once(child, 'exit');
    let out = '';
    child.stdout.on('data', (chunk) => {
      out += chunk;
      log.write(chunk);
    });
    child.stderr.pipe(log, { end: false });
    self.block = await until('plenum up prints its conferences', () => {
      if (child.exitCode !== null) throw new Error(`plenum up ended with ${child.exitCode}; see ${self.log}`);
      return parsed(out);
    }, 30);
    await until('the gateway is ready', async () => (await fetch(`${ORIGIN}/readyz`)).ok, 30);
    self.readyAfterMs = Date.now() - started;
    return self;
  }

  /** What `plenum up` printed of a conference: links and password. */
  conference(name) {
    const found = this.block.conferences.find((entry) => entry.name === name);
    if (!found) throw new Error(`plenum up printed no conference ${name}`);
    return { ...found, openerLink: found.openerLinks[0] };
  }

  /** Runs `plenum ARGS` against this system and returns what it printed. */
  plenum(...args) {
    const run = spawnSync(PLENUM, [...args, '--state-dir', this.state], { encoding: 'utf8' });
    if (run.status !== 0) throw new Error(`plenum ${args.join(' ')} ended with ${run.status}: ${run.stderr}`);
    return run.stdout;
  }

  /** Rewrites one manifest file by a function of its text; the watcher of `plenum up` does the rest. */
  change(file, edit) {
    const at = path.join(this.manifests, file);
    const before = readFileSync(at, 'utf8');
    const after = edit(before);
    if (after === before) throw new Error(`${file} was not changed`);
    writeFileSync(at, after);
  }

  /** Pids of the running children whose binary has this name. */
  children(binary) {
    return readdirSync('/proc')
      .filter((entry) => /^\d+$/.test(entry))
      .map(Number)
      .filter((pid) => {
        try {
          const parent = Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]);
          return parent === this.child.pid && path.basename(readlinkSync(`/proc/${pid}/exe`)) === binary;
        } catch {
          return false;
        }
      });
  }

  /** The child that has bound this UDP port. */
  owner(port) {
    const listed = spawnSync('ss', ['-H', '-u', '-l', '-n', '-p', `sport = :${port}`], { encoding: 'utf8' }).stdout;
    const pid = Number(/pid=(\d+)/.exec(listed)?.[1]);
    if (!pid) throw new Error(`nobody has bound UDP port ${port}: ${listed}`);
    return pid;
  }

  /** Sums of the counters of all media nodes, by name without labels. */
  async counters() {
    const sums = new Map();
    for (const name of readdirSync(this.state, { recursive: true })) {
      if (!name.endsWith('.log')) continue;
      const log = readFileSync(path.join(this.state, name), 'utf8').replaceAll(/\u001b\[[0-9;]*m/g, '');
      const address = [...log.matchAll(/metrics=(?:Some\()?(127\.0\.0\.1:\d+)/g)].at(-1)?.[1];
      if (!address) continue;
      const text = await (await fetch(`http://${address}/metrics`)).text();
      for (const [, series, value] of text.matchAll(/^(\w+)(?:\{[^}]*\})? ([0-9.e+]+)/gm)) sums.set(series, (sums.get(series) ?? 0) + Number(value));
    }
    return sums;
  }

  /** Stops it as Ctrl-C does and returns the exit code. */
  async stop() {
    if (this.child.exitCode === null) this.child.kill('SIGINT');
    const late = setTimeout(() => this.child.kill('SIGKILL'), 20_000);
    const [code] = await this.ended;
    clearTimeout(late);
    for (const name of readdirSync(this.state, { recursive: true })) {
      if (name.endsWith('.log')) cpSync(path.join(this.state, name), path.join(TARGET, 'logs', `${this.scenario}.${path.basename(name)}`));
    }
    rmSync(this.folder, { recursive: true, force: true });
    return code;
  }
}

/** The line that says that the system is ready. Others may come before it, such as that of a child that died and is started again. */
function parsed(text) {
  for (const line of text.split('\n').slice(0, -1)) {
    if (!line.startsWith('{')) continue;
    const block = JSON.parse(line);
    if (block.conferences) return block;
  }
  return null;
}
