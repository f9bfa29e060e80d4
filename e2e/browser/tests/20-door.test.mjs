// SPDX-License-Identifier: EUPL-1.2
// Who gets in: before the opener, with a wrong password, through the lobby.

import assert from 'node:assert/strict';

import { entry, roomIdOf } from '../lib/door.mjs';
import { meet, until } from '../lib/media.mjs';
import { hook } from '../lib/meeting.mjs';
import { PEOPLE } from '../lib/people.mjs';
import { openDoor, series } from '../lib/scenario.mjs';

const door = series('door', { edit: openDoor });
let ada;
let ben;
let cleo;

door.test('a guest who comes before the opener waits on a page that says so, and then gets in', async () => {
  const { guestLink, openerLink } = door.system.conference('open-door');
  ben = await door.arrive(PEOPLE.ben);
  await ben.knock(guestLink);
  await ben.screen('waiting', { reason: 'NotOpened' });
  const text = await ben.page.$eval(hook('screen'), (element) => element.innerText);
  assert.ok(text.trim().length > 20, `the page says why: ${text}`);
  assert.deepEqual((await ben.transports()).filter((transport) => transport.dtlsState === 'connected'), [], 'no media before opening');
  ada = await door.arrive(PEOPLE.ada);
  await ada.join(openerLink);
  await ben.inside();
  await ben.talk();
  await meet([ada, ben]);
}, { seconds: 200 });

door.test('ten wrong passwords are refused, and then even asking is throttled', async () => {
  const roomId = roomIdOf(door.system.conference('classroom-7b').guestLink);
  const answers = [];
  for (let tried = 0; tried < 11; tried += 1) answers.push(await entry(roomId, { name: 'Mallory', password: `wrong ${tried}` }));
  assert.equal(answers[0].event, 'refused', JSON.stringify(answers[0]));
  assert.match(answers[0].data.reason, /Password/);
  const last = answers.at(-1);
  assert.match(JSON.stringify(last), /Throttled|TooMany/, JSON.stringify(last));
  assert.ok(last.data?.retryAfterSeconds > 0 || Number(last.retryAfter) > 0, `it says when to come again: ${JSON.stringify(last)}`);
  // A conference that does not exist gives nothing away.
  const unknown = await entry('a'.repeat(26), { name: 'Mallory', password: 'x' });
  assert.notEqual(unknown.event, 'admitted');
});

door.test('somebody with a wrong password is told so on the page', async () => {
  const page = await door.arrive(PEOPLE.dora);
  const link = door.system.conference('council').guestLink.replace(/#.*/, '');
  await page.knock(link, { password: 'not the password' });
  await page.screen('prejoin');
  await page.find('form-error');
  await door.go(page);
});

door.test('in the lobby: one is let in, one is turned away', async () => {
  const { guestLink, openerLink } = door.system.conference('council');
  await ada.join(openerLink);
  await ben.knock(guestLink);
  cleo = await door.arrive(PEOPLE.cleo);
  await cleo.knock(guestLink);
  for (const page of [ben, cleo]) await page.screen('lobby');
  if (!(await ada.has('lobby-entry'))) await ada.click('people');
  await until('both wait', async () => (await ada.page.$$(hook('lobby-entry'))).length === 2);
  const decide = async (page, choice) => {
    const done = await ada.page.$$eval(hook('lobby-entry'), (entries, name, button) => {
      const row = entries.find((entry) => entry.innerText.includes(name));
      row?.querySelector(`[data-testid="${button}"]`)?.click();
      return Boolean(row);
    }, page.person.name, choice);
    assert.ok(done, `${page.label} stands in the lobby`);
  };
  await decide(ben, 'admit');
  await ben.inside();
  await ben.talk();
  await decide(cleo, 'deny');
  await cleo.screen('end');
  await meet([ada, ben]);
});
