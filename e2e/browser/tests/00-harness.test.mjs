// SPDX-License-Identifier: EUPL-1.2
// The instruments themselves: a page of the tests' own loops its camera through two peer connections, and the probe
// must read the film and the tone at the far end, and must notice what is wrong.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';

import { Person } from '../lib/browsers.mjs';
import { COLUMNS, decodeStrip, encodeBits } from '../lib/frame-code.mjs';
import { account, ciphers, films, hears, ownHostOnly, sees } from '../lib/media.mjs';
import { FRAMES, PEOPLE } from '../lib/people.mjs';

const PAGE = `<!doctype html><meta charset="utf-8"><title>loop</title><body><script type="module">
const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
const [near, far] = [new RTCPeerConnection(), new RTCPeerConnection()];
near.onicecandidate = (event) => far.addIceCandidate(event.candidate);
far.onicecandidate = (event) => near.addIceCandidate(event.candidate);
far.ontrack = (event) => {
  const element = document.createElement(event.track.kind);
  element.autoplay = true;
  element.srcObject = new MediaStream([event.track]);
  document.body.append(element);
};
for (const track of stream.getTracks()) near.addTrack(track, stream);
await near.setLocalDescription();
await far.setRemoteDescription(near.localDescription);
await far.setLocalDescription();
await near.setRemoteDescription(far.localDescription);
</script>`;

let server;
let origin;
before(async () => {
  server = createServer((request, response) => {
    response.setHeader('content-type', 'text/html');
    response.end(request.url === '/' ? PAGE : '');
  });
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  origin = `http://127.0.0.1:${server.address().port}`;
});
after(() => server.close());

test('a code that was damaged in one block is refused', () => {
  const bits = encodeBits(3, 1234);
  const strip = (word) => {
    const pixels = new Uint8ClampedArray(COLUMNS * 4 * 8 * 4);
    for (let y = 0; y < 8; y += 1) {
      for (let x = 0; x < COLUMNS * 4; x += 1) {
        const value = word[Math.floor(y / 4) * COLUMNS + Math.floor(x / 4)] ? 235 : 16;
        pixels.set([value, value, value, 255], (y * COLUMNS * 4 + x) * 4);
      }
    }
    return decodeStrip(pixels, COLUMNS * 4, 8);
  };
  assert.deepEqual(strip(bits), { person: 3, counter: 1234 });
  for (let flipped = 0; flipped < 32; flipped += 1) {
    assert.equal(strip(bits.map((bit, at) => (at === flipped ? 1 - bit : bit))), null, `bit ${flipped}`);
  }
});

test('missing frames and steps back are counted, the turn of the film is neither', () => {
  const frames = (counters) => counters.map((counter, at) => ({ at: at * 70, person: 1, counter: counter % FRAMES }));
  assert.equal(account(frames([5, 6, 7, 8])).missing, 0);
  assert.equal(account(frames([5, 6, 9, 10])).missing, 2);
  assert.equal(account(frames([FRAMES - 1, FRAMES, FRAMES + 1])).missing, 0);
  assert.equal(account(frames([5, 6, 4, 7])).backwards, 1);
});

for (const [kind, person] of [['chromium', PEOPLE.ada], ['firefox', PEOPLE.fox]]) {
  test(`the probe reads film, tone, cipher and requests of ${kind}`, { timeout: 90_000 }, async () => {
    const page = await Person.arrive(person, { kind, label: `harness-${kind}` });
    try {
      await page.page.goto(`${origin}/`);
      await sees(page, [page]);
      await hears(page, [page]);
      await assert.rejects(sees(page, [{ person: PEOPLE.ben }], { seconds: 2 }), /no film of Ben/);
      await assert.rejects(hears(page, [{ person: PEOPLE.ben }], { seconds: 2 }), /no tone of Ben/);
      const film = (await films(page)).get(person.name);
      console.log(`${kind}: ${film.frames} frames, ${film.missing} missing, ${film.undecodable} unreadable, ${JSON.stringify(await page.transports())}`);
      // Two browsers' ends among themselves choose SHA1, so the instrument must call that out.
      if (kind === 'chromium') await assert.rejects(ciphers(page), /SRTP cipher is .*SHA1/);
      await ownHostOnly(page, new URL(origin).host);
      await page.page.evaluate(() => fetch('http://127.0.0.2:8099/').catch(() => {}));
      await assert.rejects(ownHostOnly(page, new URL(origin).host), /127\.0\.0\.2/);
    } finally {
      await page.leave();
    }
  });
}
