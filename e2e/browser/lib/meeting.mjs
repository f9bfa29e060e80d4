// SPDX-License-Identifier: EUPL-1.2
// What a person does on Plenum's page, by the hooks that control-plane/web/README.md names.

import { Person } from './browsers.mjs';
import { until } from './media.mjs';

export const hook = (id, more = '') => `[data-testid="${id}"]${more}`;

export class Guest extends Person {
  async open(link) {
    // A link differs from the last one only behind the '#', and such a step loads nothing.
    await this.page.goto('about:blank');
    await this.page.goto(link);
  }

  has(id, more = '') {
    return this.page.$(hook(id, more)).then((found) => found !== null);
  }

  async find(id, more = '', seconds = 30) {
    try {
      return await this.page.waitForSelector(hook(id, more), { timeout: seconds * 1000 });
    } catch {
      throw new Error(`${this.label}: no ${id}${more} within ${seconds} s; the page shows ${await this.shown()}`);
    }
  }

  async gone(id, more = '', seconds = 30) {
    await until(`${this.label}: ${id}${more} goes`, async () => !(await this.has(id, more)), seconds);
  }

  async click(id, more = '') {
    const found = await this.find(id, more);
    // The element may move while tiles arrive; a click by script hits it wherever it is.
    await found.evaluate((element) => element.click());
  }

  async type(id, text) {
    const field = await this.find(id);
    await field.evaluate((element) => element.select?.());
    await field.type(text);
  }

  attribute(id, name, more = '') {
    return this.page.$eval(hook(id, more), (element, attribute) => element.getAttribute(attribute), name);
  }

  async shown() {
    return this.page
      .$eval(hook('screen'), (element) => `${element.dataset.screen} ${element.dataset.reason ?? ''}: ${element.innerText.slice(0, 200).replaceAll('\n', ' / ')}`)
      .catch(() => `no screen at ${this.page.url()}`);
  }

  screen(name, { reason, seconds = 30 } = {}) {
    return this.find('screen', `[data-screen="${name}"]${reason ? `[data-reason="${reason}"]` : ''}`, seconds);
  }

  /** Fills in the page before the meeting and asks to be let in; does not wait for what comes then. */
  async knock(link, { password, mic = true, camera = true } = {}) {
    await this.open(link);
    await this.screen('prejoin');
    await this.type('name', this.person.name);
    if (password !== undefined) await this.type('password', password);
    for (const [id, wanted] of [['toggle-mic', mic], ['toggle-camera', camera]]) {
      const pressed = (await this.attribute(id, 'aria-pressed')) === 'true';
      if (pressed !== wanted) {
        await this.click(id);
        await this.find(id, `[aria-pressed="${wanted}"]`);
      }
    }
    await this.click('join');
  }

  /** Waits until the person is in the call, and notes the identity given. */
  async inside(seconds = 45) {
    await this.screen('call', { seconds });
    const own = await this.find('tile', '[data-local="true"]', seconds);
    this.identity = await own.evaluate((element) => element.dataset.identity);
    return this.identity;
  }

  async join(link, options = {}) {
    await this.knock(link, options);
    await this.inside(options.seconds);
    if (options.mic !== false) await this.talk();
    return this;
  }

  /** Turns the microphone on: a guest enters muted, a moment after the page has shown the call. */
  async talk() {
    let calm = 0;
    await until(`${this.label}'s microphone is on`, async () => {
      calm = (await this.page.$(hook('mic', '[aria-pressed="true"]'))) === null ? 0 : calm + 1;
      if (calm === 0) await this.page.$eval(hook('mic', ':not([aria-busy="true"])'), (element) => element.click()).catch(() => {});
      return calm > 5;
    });
  }

  async openPanel(id) {
    if ((await this.attribute(id, 'aria-pressed')) !== 'true' && (await this.attribute(id, 'aria-expanded')) !== 'true') await this.click(id);
  }

  async say(text) {
    if (!(await this.has('chat-input'))) await this.click('chat');
    await this.type('chat-input', text);
    await this.click('chat-send');
  }

  async reads(text, from) {
    if (!(await this.has('chat-input'))) await this.click('chat');
    await until(`${this.label} reads "${text}"`, () =>
      this.page.$$eval(hook('chat-message', from ? `[data-identity="${from.identity}"]` : ''), (messages, wanted) => messages.some((message) => message.innerText.includes(wanted)), text),
    );
  }

  /** Opens the menu of somebody in the list of people and chooses from it. */
  async moderate(other, choice, confirm = false) {
    if (!(await this.has('person'))) await this.click('people');
    const row = hook('person', `[data-identity="${other.identity}"]`);
    await this.find('person', `[data-identity="${other.identity}"]`);
    if ((await this.page.$(`${row} ${hook('person-menu', '[aria-expanded="true"]')}`)) === null) {
      await this.page.$eval(`${row} ${hook('person-menu')}`, (element) => element.click());
    }
    // A menu may stay open from the last time; the choice must be this person's.
    const item = await this.page.waitForSelector(`${row} ${hook(choice)}`, { timeout: 10_000 });
    await item.evaluate((element) => element.click());
    if (confirm) await this.click('confirm');
  }
}
