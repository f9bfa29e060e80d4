// SPDX-License-Identifier: EUPL-1.2
// Two people meet in a conference of a system that somebody else has started, a cluster:
//   node cluster.mjs CALL.json
// The file says whom to trust (`authority`, PEM), where the system is (`host`), by which links to come (`openerLink`, `guestLink`) and where
// media must come from (`media`: addresses and the range of ports).

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';

import { ciphers, meet, ownHostOnly } from './lib/media.mjs';
import { Guest } from './lib/meeting.mjs';
import { PEOPLE } from './lib/people.mjs';
import { TARGET } from './lib/paths.mjs';
import { trust } from './lib/trust.mjs';

const call = JSON.parse(readFileSync(process.argv[2], 'utf8'));
process.env.E2E_SCENARIO = 'cluster';

/** Every transport that carries media ends at a media pod's port of a node. */
async function fromPods(page) {
  const transports = (await page.transports()).filter((transport) => transport.dtlsState === 'connected');
  assert.ok(transports.length > 0, `${page.label} has a transport`);
  for (const { remote } of transports) {
    assert.ok(call.media.addresses.includes(remote?.address), `${page.label}: media come from ${JSON.stringify(remote)}`);
    assert.ok(remote.port >= call.media.ports[0] && remote.port <= call.media.ports[1], `${page.label}: media come from port ${remote.port}`);
  }
  return [...new Set(transports.map(({ remote }) => `${remote.address}:${remote.port}`))];
}

async function scenario(people) {
  const [ada, ben] = people;
  await ada.join(call.openerLink, { seconds: 90 });
  await ben.knock(call.guestLink);
  // Guests of a meeting wait in the lobby until somebody lets them in.
  await ben.screen('lobby');
  if (!(await ada.has('lobby-entry'))) await ada.click('people');
  await ada.find('lobby-entry');
  await ada.click('admit');
  await ben.inside(90);
  await ben.talk();
  await meet(people, { seconds: 90 });
  console.log(`browsers: first picture of another person ${await ben.firstPictureMs()} ms after dialling`);
  for (const page of people) {
    console.log(`browsers: ${page.label} ${await ciphers(page)}, media from ${await fromPods(page)}`);
    await ownHostOnly(page, call.host);
    assert.deepEqual(page.errors, [], `${page.label} has no script errors`);
  }
  await ada.click('leave');
  await ada.click('end-for-all');
  if (await ada.has('end-confirm')) await ada.click('end-confirm');
  await ben.screen('end');
}

trust(call.authority);
const people = [];
try {
  people.push(...(await Promise.all([PEOPLE.ada, PEOPLE.ben].map((person) => Guest.arrive(person)))));
  await scenario(people);
  console.log('browsers: both see and hear each other');
} catch (error) {
  for (const page of people) {
    const picture = path.join(TARGET, 'failures', `cluster-${page.label}.png`);
    const attempt = (work) => Promise.race([work, new Promise((done) => setTimeout(done, 5000, 'no answer'))]).catch(String);
    console.error(`${page.label}: ${await attempt(page.shown())}; ${JSON.stringify(await attempt(page.transports()))}; ${page.errors}; ${await attempt(page.picture(picture))}`);
  }
  throw error;
} finally {
  await Promise.all(people.map((page) => page.leave()));
}
