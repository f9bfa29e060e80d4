// SPDX-License-Identifier: EUPL-1.2
// A small wish, and a media node that dies.

import assert from 'node:assert/strict';

import { account, films, meet, sleep, until } from '../lib/media.mjs';
import { dropMedia, dropped, none } from '../lib/loss.mjs';
import { PEOPLE } from '../lib/people.mjs';
import { openDoor, series } from '../lib/scenario.mjs';

const faults = series('faults', { edit: openDoor });
let ada;
let ben;
let cleo;

faults.test('three meet', async () => {
  const { guestLink, openerLink } = faults.system.conference('open-door');
  [ada, ben, cleo] = await Promise.all([PEOPLE.ada, PEOPLE.ben, PEOPLE.cleo].map((person) => faults.arrive(person)));
  await ada.join(openerLink);
  await ben.join(guestLink);
  await cleo.join(guestLink);
  await meet([ada, ben, cleo]);
}, { seconds: 240 });

faults.test('a wish for 180p is served without a freeze, and so is the way back', async () => {
  const film = async () => (await films(cleo)).get('Ada') ?? null;
  const height = async (wanted) =>
    until(`Cleo gets Ada at ${wanted}p`, async () => {
      const list = (await cleo.frames()).find((entry) => entry.identity === ada.identity)?.frames ?? [];
      return list.at(-1)?.height === wanted;
    }, 60);
  const simulcast = (await ada.outbound()).filter((stream) => stream.kind === 'video');
  assert.ok(simulcast.length >= 2, `Ada sends layers: ${JSON.stringify(simulcast)}`);
  await cleo.page.setViewport({ width: 1600, height: 1000 });
  await height(360);
  const since = await cleo.now();
  const frozen = async () => (await cleo.inbound()).reduce((sum, stream) => sum + (stream.freezeCount ?? 0), 0);
  const before = await frozen();
  await cleo.page.setViewport({ width: 400, height: 640 });
  await height(180);
  await sleep(2000);
  await cleo.page.setViewport({ width: 1600, height: 1000 });
  await height(360);
  await sleep(1000);
  assert.ok(await film(), 'the film goes on');
  const list = (await cleo.frames()).find((entry) => entry.identity === ada.identity);
  const counted = account(list.frames, since);
  console.log(`layers switched: ${JSON.stringify(counted)}, unreadable ${list.undecodable}, freezes ${(await frozen()) - before}`);
  assert.equal(counted.backwards, 0, 'no frame is shown twice or out of order');
  assert.ok(counted.longestGapFrames <= 30, `a gap of ${counted.longestGapFrames} frames`);
});

faults.test('under 5 % loss in both directions the films go on', async () => {
  const since = await cleo.now();
  dropMedia(5);
  await sleep(10_000);
  const lost = dropped();
  none();
  await sleep(500);
  for (const [name, film] of await films(cleo, since)) {
    console.log(`5 % loss (${lost} packets): ${name}: ${film.frames} frames, ${film.missing} missing, longest gap ${film.longestGapFrames} frames, ${film.longestGapMs} ms`);
    assert.ok(film.frames > 60, `${name}: ${film.frames} frames in 10 s`);
    assert.equal(film.backwards, 0);
  }
  assert.ok(lost > 50, `${lost} packets were dropped`);
  await meet([ada, ben, cleo]);
});

faults.test('a media node is killed: the conference comes back by itself, opened as it was, without its opener', async () => {
  await ada.click('leave');
  await ada.click('leave-now');
  await ada.screen('end');
  await meet([ben, cleo]);
  const port = (await ben.transports()).find((transport) => transport.remote)?.remote.port;
  assert.ok(port, `Ben's node is known: ${JSON.stringify(await ben.transports())}`);
  const victim = faults.system.owner(port);
  const nodes = faults.system.children('media-node');
  assert.ok(nodes.includes(victim), `${victim} is one of the nodes ${nodes}`);
  const since = await cleo.now();
  process.kill(victim, 'SIGKILL');
  await until('the films come back', async () => {
    await meet([ben, cleo], { seconds: 5 });
    const shown = (await films(cleo, since)).get('Ben');
    return account(shown.list, since).longestGapMs > 0 && !faults.system.children('media-node').includes(victim);
  }, 90);
  await until('the dead node is restarted', () => faults.system.children('media-node').length === nodes.length, 60);
  for (const page of [ben, cleo]) assert.equal(await page.has('screen', '[data-screen="call"]'), true, `${page.label} never left the call`);
  await meet([ben, cleo]);
}, { seconds: 240 });
