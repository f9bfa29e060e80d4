// SPDX-License-Identifier: EUPL-1.2
// Two replicas of the control plane and a real Redis; they are taken away under a meeting of real browsers.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import path from 'node:path';
import { after } from 'node:test';

import { films, meet, sleep, until } from '../lib/media.mjs';
import { BINARIES } from '../lib/paths.mjs';
import { PEOPLE } from '../lib/people.mjs';
import { openDoor, series } from '../lib/scenario.mjs';
import { ORIGIN } from '../lib/system.mjs';

/** Frames in a row (5 s): more than a busy machine takes for encoding three films, less than any way of losing media here costs. */
const GAP = 75;
const PORT = '16379';
const PROGRAM = path.join(BINARIES, 'control-plane');

let redis;
const replicas = series('replicas', {
  edit: (system) => {
    openDoor(system);
    redis = spawn('redis-server', ['--port', PORT, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', system.folder], { stdio: 'ignore' });
  },
  args: ['--replicas', '2', '--redis', `redis://127.0.0.1:${PORT}`],
});
after(() => redis?.kill('SIGKILL'));

let ada;
let ben;
let fox;

function mount(...args) {
  const run = spawnSync(args[0], args.slice(1), { encoding: 'utf8' });
  assert.equal(run.status, 0, `${args.join(' ')}: ${run.stderr}`);
}

const running = () => replicas.system.children('control-plane');
const connections = (page) => page.page.evaluate(() => globalThis.__probe.connections.filter((connection) => connection.connectionState === 'connected').length);

/** Everybody's films since `since` went on, the page never left the call, and no peer connection was made anew. */
async function wentOn(what, since, before) {
  const pages = [ada, ben, fox];
  for (const [at, page] of pages.entries()) {
    assert.equal(await page.has('screen', '[data-screen="call"]'), true, `${page.label} never left the call`);
    assert.equal(await connections(page), before[at], `${page.label} keeps its peer connections`);
    for (const [name, film] of await films(page, since[at])) {
      console.log(`${what}: ${page.label} sees ${name}: ${film.frames} frames, ${film.missing} missing, longest gap ${film.longestGapFrames} frames, ${film.longestGapMs} ms`);
      assert.ok(film.frames > 15 && film.longestGapFrames <= GAP, `${page.label}: a gap in the film of ${name}`);
    }
  }
}

/** Every page has signalling again. */
async function back() {
  for (const page of [ada, ben, fox]) await until(`${page.label} has signalling`, async () => !(await page.has('reconnecting')), 60);
  await sleep(1000);
}

/** Signalling works in both directions: what a moderator does to somebody, both hear of, and it is undone. */
async function worksAgain() {
  for (const page of [ben, fox]) {
    await ada.moderate(page, 'mute-person');
    await page.find('mic', '[aria-pressed="false"]');
    await page.talk();
  }
  await meet([ada, ben, fox]);
}

replicas.test('three meet over two replicas', async () => {
  const { guestLink, openerLink } = replicas.system.conference('open-door');
  [ada, ben] = await Promise.all([PEOPLE.ada, PEOPLE.ben].map((person) => replicas.arrive(person)));
  fox = await replicas.arrive(PEOPLE.fox, { kind: 'firefox' });
  await ada.join(openerLink);
  await ben.join(guestLink);
  await fox.join(guestLink);
  await meet([ada, ben, fox]);
  assert.equal(running().length, 2);
}, { seconds: 240 });

replicas.test('a replica is killed: films go on, and the pages resume', async () => {
  const pages = [ada, ben, fox];
  const since = await Promise.all(pages.map((page) => page.now()));
  const before = await Promise.all(pages.map(connections));
  const [victim] = running();
  process.kill(victim, 'SIGKILL');
  await until('plenum up starts it again', () => running().length === 2 && !running().includes(victim));
  await back();
  // Longer than consent lasts: a path that is not the right one any more is lost by then.
  await sleep(16_000);
  await wentOn('replica killed', since, before);
  await worksAgain();
}, { seconds: 240 });

replicas.test('thirty seconds without any replica: films go on, and the pages resume', async () => {
  const pages = [ada, ben, fox];
  const since = await Promise.all(pages.map((page) => page.now()));
  const before = await Promise.all(pages.map(connections));
  // In this mount namespace alone, nothing can be started from the program's file.
  mount('mount', '--bind', '/dev/null', PROGRAM);
  try {
    for (const victim of running()) process.kill(victim, 'SIGKILL');
    const gone = Date.now();
    await until('all replicas are gone', () => running().length === 0);
    await sleep(30_000 - (Date.now() - gone));
    assert.equal(running().length, 0, 'all replicas are away');
  } finally {
    mount('umount', '--lazy', PROGRAM);
  }
  await until('a replica serves again', async () => (await fetch(`${ORIGIN}/readyz`)).ok, 60);
  await back();
  await wentOn('all replicas away', since, before);
  await worksAgain();
}, { seconds: 300 });
