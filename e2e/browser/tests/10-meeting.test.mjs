// SPDX-License-Identifier: EUPL-1.2
// A council meeting of three, exactly as `make run` declares it, in Chromium; a fourth joins with Firefox.

import assert from 'node:assert/strict';

import { account, ciphers, films, hears, meet, ownHostOnly, sees, sleep, until } from '../lib/media.mjs';
import { cutSockets, none } from '../lib/loss.mjs';
import { upgrade } from '../lib/door.mjs';
import { hook } from '../lib/meeting.mjs';
import { PEOPLE } from '../lib/people.mjs';
import { series } from '../lib/scenario.mjs';
import { HOST } from '../lib/system.mjs';

const meeting = series('meeting');
/** Frames that may be missing in a row: three times the half second that is wanted, and a busy machine's due. */
const GAP = 30;
let ada;
let ben;
let cleo;
let fox;

/** What others' films lost between two moments; each must have gone on. */
async function gaps(page, since, people) {
  const shown = await films(page, since);
  return people.map((other) => {
    const film = shown.get(other.person.name);
    assert.ok(film, `${page.label} sees ${other.person.name}`);
    return { viewer: page.label, film: other.person.name, frames: film.frames, missing: film.missing, longestGapFrames: film.longestGapFrames, longestGapMs: film.longestGapMs };
  });
}

meeting.test('three people meet: everybody sees the films and hears the tones of the two others', async () => {
  const council = meeting.system.conference('council');
  [ada, ben, cleo] = await Promise.all([PEOPLE.ada, PEOPLE.ben, PEOPLE.cleo].map((person) => meeting.arrive(person)));
  await ada.join(council.openerLink);
  for (const page of [ben, cleo]) await page.knock(council.guestLink);
  // Guests of a meeting wait in the lobby until somebody lets them in.
  for (const page of [ben, cleo]) await page.screen('lobby');
  if (!(await ada.has('lobby-entry'))) await ada.click('people');
  await until('both wait', async () => (await ada.page.$$(hook('lobby-entry'))).length === 2);
  await ada.click('admit-all');
  for (const page of [ben, cleo]) {
    await page.inside();
    await page.talk();
  }
  await meet([ada, ben, cleo]);
  console.log(`chromium: first picture of another person ${await cleo.firstPictureMs()} ms after dialling`);
}, { seconds: 240 });

meeting.test('media are encrypted with AES-GCM, and the pages ask no other host', async () => {
  for (const page of [ada, ben, cleo]) {
    console.log(`${page.label}: ${await ciphers(page)}`);
    await ownHostOnly(page, HOST);
    assert.deepEqual(page.errors, [], `${page.label} has no script errors`);
  }
});

meeting.test('what one writes the others read, as hers', async () => {
  await ben.say('Good morning from Ben');
  await ada.reads('Good morning from Ben', ben);
  await cleo.reads('Good morning from Ben', ben);
  await ada.say('Willkommen, äöü €');
  await cleo.reads('Willkommen, äöü €', ada);
});

meeting.test('a shared screen reaches the others beside the camera, and goes again', async () => {
  // A guest's role does not allow it; the moderator's does.
  await ben.find('screen-share', '[aria-disabled="true"]');
  await ada.click('screen-share');
  const screen = `[data-identity="${ada.identity}"][data-source="screen_share"]`;
  for (const page of [ben, cleo]) {
    await page.find('tile', screen);
    await until(`${page.label} sees the screen move`, async () =>
      (await page.frames()).some((film) => film.identity === ada.identity && film.source === 'screen_share' && film.seen > 5));
  }
  // Somebody's film may be small or off the stage while a screen is shown, but not gone for good.
  await ada.click('screen-share');
  for (const page of [ben, cleo]) await page.gone('tile', screen);
  await meet([ada, ben, cleo]);
});

meeting.test('a moderator mutes somebody: the others stop hearing him, and he knows', async () => {
  await ada.moderate(ben, 'mute-person');
  await ben.find('mic', '[aria-pressed="false"]');
  await cleo.find('tile', `[data-identity="${ben.identity}"][data-muted="true"]`);
  await sleep(1000);
  const since = await cleo.now();
  await sleep(2000);
  for (const track of await cleo.tones(since)) assert.equal(track.heard[PEOPLE.ben.tone] ?? 0, 0, 'the muted tone is still heard');
  await ben.talk();
  await hears(cleo, [ada, ben]);
});

meeting.test('a manifest that changes while people talk takes effect, and no frame is lost by it', async () => {
  const since = await cleo.now();
  meeting.system.change('conferences.yaml', (text) => text.replace('displayName: Council meeting', 'displayName: Council meeting, changed'));
  const roomId = meeting.system.conference('council').guestLink.match(/\/c\/([^#]+)/)[1];
  await until('the new name is shown', async () => {
    const answer = await (await fetch(`http://${HOST}/api/v1/c/${roomId}`)).json();
    return answer.conference.displayName === 'Council meeting, changed';
  });
  await sleep(2000);
  for (const gap of await gaps(cleo, since, [ada, ben])) {
    console.log(`manifest changed: ${JSON.stringify(gap)}`);
    assert.ok(gap.frames > 15 && gap.longestGapFrames <= GAP, `a gap: ${JSON.stringify(gap)}`);
  }
});

meeting.test('a cut WebSocket is resumed, and media flow all the while', async () => {
  const sockets = (page) => page.page.evaluate(() => globalThis.__probe.sockets.map(({ url, closed }) => ({ url, closed })));
  const connections = (page) => page.page.evaluate(() => globalThis.__probe.connections.filter((connection) => connection.connectionState === 'connected').length);
  const pages = [ada, ben, cleo];
  const before = await Promise.all(pages.map(connections));
  const since = await Promise.all(pages.map((page) => page.now()));
  const known = await Promise.all(pages.map(async (page) => (await sockets(page)).length));
  cutSockets();
  for (const page of pages) await until(`${page.label}'s socket is cut`, async () => (await sockets(page)).every((socket) => socket.closed !== null));
  none();
  for (const [at, page] of pages.entries()) {
    await until(`${page.label} is back`, async () => {
      const all = await sockets(page);
      return all.length > known[at] && all.at(-1).closed === null && !(await page.has('reconnecting'));
    });
    const last = (await sockets(page)).at(-1).url;
    assert.match(last, /[?&]reconnect=1/, `${page.label} resumes instead of joining anew`);
  }
  await sleep(1000);
  const all = [];
  for (const [at, page] of pages.entries()) {
    assert.equal(await connections(page), before[at], `${page.label} keeps its peer connections`);
    const found = await gaps(page, since[at], pages.filter((other) => other !== page));
    for (const gap of found) console.log(`WebSocket cut: ${JSON.stringify(gap)}`);
    all.push(...found);
  }
  for (const gap of all) assert.ok(gap.longestGapFrames <= GAP, `a gap: ${JSON.stringify(gap)}`);
  // The resumed signalling works: something sent through it has an effect.
  await ada.moderate(cleo, 'mute-person');
  await cleo.find('mic', '[aria-pressed="false"]');
  await cleo.talk();
  await meet(pages);
});

meeting.test('Firefox joins, publishes and receives in the same room', async () => {
  fox = await meeting.arrive(PEOPLE.fox, { kind: 'firefox' });
  await fox.knock(meeting.system.conference('council').guestLink);
  await fox.screen('lobby');
  await ada.find('lobby-entry');
  await ada.click('admit');
  await fox.inside();
  await fox.talk();
  await meet([ada, ben, cleo, fox]);
  console.log(`firefox: ${await ciphers(fox)}`);
  console.log(`firefox: first picture of another person ${await fox.firstPictureMs()} ms after dialling`);
  await ownHostOnly(fox, HOST);
}, { seconds: 240 });

meeting.test('the nodes count what leaves together', async () => {
  const counters = await meeting.system.counters();
  const of = (name) => counters.get(`plenum_media_shard_${name}_total`) ?? 0;
  assert.ok(of('forwarded_packets') > 1000, `packets were forwarded: ${JSON.stringify([...counters])}`);
  const share = (part, whole) => (of(part) / of(whole)).toFixed(3);
  console.log(`runs of media: mean length ${share('forwarded_packets', 'media_runs')}, segmented ${share('segmented_media_runs', 'media_runs')}; of all sends segmented ${share('segmented_sends', 'sends')}`);
  assert.equal(of('legacy_transports'), 0, 'no transport fell back to SHA1');
});

meeting.test('who was removed does not come back with the same token', async () => {
  const tokens = await cleo.page.evaluate(() => globalThis.__probe.sockets.map(({ url }) => new URL(url).searchParams.get('access_token')));
  await ada.moderate(cleo, 'remove-person', true);
  await cleo.screen('end');
  for (const token of new Set(tokens)) {
    const status = await upgrade(token);
    assert.ok([401, 403].includes(status), `the old token got ${status}`);
  }
  await sees(ada, [ben, fox]);
});

meeting.test('the moderator ends the meeting for all', async () => {
  await ada.click('leave');
  await ada.click('end-for-all');
  if (await ada.has('end-confirm')) await ada.click('end-confirm');
  for (const page of [ben, fox]) await page.screen('end');
});
