// SPDX-License-Identifier: EUPL-1.2
// Takes the pictures of the documentation from a running conference: make screenshots.

import path from 'node:path';

import { sleep, until } from './lib/media.mjs';
import { hook } from './lib/meeting.mjs';
import { PEOPLE } from './lib/people.mjs';
import { portrait } from './lib/portraits.mjs';
import { series } from './lib/scenario.mjs';

const folder = process.env.E2E_PICTURES;
if (!folder) throw new Error('E2E_PICTURES names the folder of the pictures (make screenshots sets it)');
const pictures = series('pictures');

pictures.test('pictures of the page before a conference, of the conference, and on a phone', async () => {
  const council = pictures.system.conference('council');
  const arrive = async (name, size) => pictures.arrive(PEOPLE[name], { film: await portrait(name), size });
  const ada = await arrive('ada', { width: 1280, height: 800 });
  const guests = [await arrive('ben', { width: 1100, height: 700 }), await arrive('cleo', { width: 390, height: 780 }), await arrive('dora', { width: 1100, height: 700 })];
  await ada.join(council.openerLink);
  for (const page of guests) {
    await page.knock(council.guestLink);
    await page.screen('lobby');
    if (!(await ada.has('lobby-entry'))) await ada.click('people');
    await ada.find('lobby-entry');
    await ada.click('admit');
    await page.inside();
  }
  await guests[0].say('The minutes of the last meeting are in the folder.');
  await guests[1].say('Thank you!');
  await until('everybody is shown', async () => (await ada.page.$$(`${hook('tile')} video`)).length === 4);
  await ada.click('chat');
  await sleep(6000);
  await ada.picture(path.join(folder, 'conference.png'));
  await guests[1].page.evaluate(() => document.querySelector('[data-testid="panel-close"]')?.click());
  await sleep(1500);
  await guests[1].picture(path.join(folder, 'phone.png'));
}, { seconds: 240 });
