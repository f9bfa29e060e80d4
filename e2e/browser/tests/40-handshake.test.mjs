// SPDX-License-Identifier: EUPL-1.2
// Every datagram of the DTLS handshakes is lost once, in both directions, against both browsers, and 20 % of all of
// them for three seconds: none of it may hang a call.

import assert from 'node:assert/strict';

import { dropDatagram, dropHandshakes, dropped, none } from '../lib/loss.mjs';
import { sees, sleep } from '../lib/media.mjs';
import { PEOPLE } from '../lib/people.mjs';
import { openDoor, series } from '../lib/scenario.mjs';

const handshake = series('handshake', { edit: openDoor });
let ada;

handshake.test('somebody is there to be seen', async () => {
  ada = await handshake.arrive(PEOPLE.ada);
  await ada.join(handshake.system.conference('open-door').openerLink, { mic: false });
});

async function joinAndLeave(page) {
  const { guestLink } = handshake.system.conference('open-door');
  await page.join(guestLink, { mic: false });
  await sees(page, [ada], { frames: 3 });
  await sees(ada, [page], { frames: 3 });
  await page.click('leave');
  await page.click('leave-now');
  await page.screen('end');
}

for (const [kind, person] of [['chromium', PEOPLE.ben], ['firefox', PEOPLE.fox]]) {
  let page;
  handshake.test(`${kind}: joins without loss`, async () => {
    page = await handshake.arrive(person, { kind });
    await joinAndLeave(page);
  });
  for (const side of ['server', 'client']) {
    handshake.test(`${kind}: each datagram that the ${side} sends in the handshakes is lost once`, async () => {
      let tried = 0;
      // The first ten are the handshakes of both peer connections; what follows is data channels.
      for (let nth = 0; nth < 10; nth += 1) {
        dropDatagram(side, nth);
        const began = Date.now();
        await joinAndLeave(page);
        const lost = dropped();
        none();
        console.log(`${kind}: datagram ${nth} of the ${side} lost (${lost}): met and left after ${Date.now() - began} ms`);
        if (lost === 0) break;
        tried += 1;
      }
      assert.ok(tried >= 4, `only ${tried} datagrams were lost`);
    }, { seconds: 400 });
  }
  handshake.test(`${kind}: 20 % of the handshakes' datagrams are lost for 3 s`, async () => {
    dropHandshakes(20);
    const calm = setTimeout(none, 3000);
    await joinAndLeave(page);
    await sleep(0);
    clearTimeout(calm);
    none();
    await handshake.go(page);
  });
}
