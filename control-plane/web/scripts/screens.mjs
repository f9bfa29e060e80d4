// SPDX-License-Identifier: EUPL-1.2
// Looks at every screen in a real Chromium: pictures in .cache/screens/, axe-core without serious findings, no request to another host, no breach of the
// Content-Security-Policy, no error in the console, no sideways scrolling. `npm run screens [-- NAME [SIZE]]`; CHROMIUM names another browser.
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { chromium } from 'playwright-core';
import { build } from 'vite';

import { serve } from './door.mjs';

const root = new URL('../', import.meta.url).pathname;
const pictures = join(root, '.cache/screens');
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const [, , only, size] = process.argv;
const faults = [];

const fillForm = async (page, more = async () => {}) => {
  await page.getByTestId('ack-protocol').check({ timeout: 2000 }).catch(() => {});
  await page.getByTestId('name').fill('Robin Beispiel');
  if (await page.getByTestId('password').isVisible()) {
    await page.getByTestId('password').fill('ein-langes-passwort');
  }
  await more();
  await page.getByTestId('join').click();
};
const screen = (page, name) => page.locator(`[data-testid=screen][data-screen=${name}]`).waitFor();

/** Name, path, and what leads to the picture. */
const SCENES = [
  ['home', '/', async (page) => screen(page, 'home')],
  ['home-invalid', '/', async (page) => { await page.getByTestId('link').fill('https://elsewhere.example/c/x'); await page.getByTestId('open').click(); }],
  ['prejoin', '/c/open', async (page) => screen(page, 'prejoin')],
  ['prejoin-plain', '/c/plain', async (page) => screen(page, 'prejoin')],
  ['prejoin-opener', '/c/waiting#k=key', async (page) => screen(page, 'prejoin')],
  ['prejoin-scheduled', '/c/scheduled#p=secret', async (page) => screen(page, 'prejoin')],
  ['prejoin-closed', '/c/closed#p=secret', async (page) => screen(page, 'prejoin')],
  ['prejoin-incomplete', '/c/open', async (page) => { await page.getByTestId('join').click(); }],
  ['prejoin-devices', '/c/open#p=secret', async (page) => {
    await page.getByTestId('toggle-camera').click();
    await page.getByTestId('toggle-mic').click();
    await page.waitForFunction(() => document.querySelector('[data-testid=preview]')?.videoWidth > 0);
    await page.waitForFunction(() => Number(document.querySelector('[data-testid=mic-level]')?.getAttribute('data-level')) > 0);
    await page.waitForTimeout(300);
  }],
  ['wrong-password', '/c/wrong#p=old', async (page) => { await fillForm(page); await page.getByTestId('form-error').waitFor(); }],
  ['throttled', '/c/throttled', async (page) => { await fillForm(page); await page.getByTestId('form-error').waitFor(); }],
  ['connecting', '/c/open', async (page) => { await fillForm(page); await screen(page, 'connecting'); }],
  ['waiting', '/c/waiting', async (page) => { await fillForm(page, () => page.getByTestId('toggle-camera').click()); await screen(page, 'waiting'); }],
  ['not-yet-time', '/c/scheduled', async (page) => { await fillForm(page); await screen(page, 'waiting'); }],
  ['no-capacity', '/c/capacity', async (page) => { await fillForm(page); await screen(page, 'waiting'); }],
  ['lobby', '/c/lobby', async (page) => { await fillForm(page); await screen(page, 'lobby'); }],
  ['denied', '/c/denied', async (page) => { await fillForm(page); await screen(page, 'end'); }],
  ['unknown-reason', '/c/strange', async (page) => { await fillForm(page); await screen(page, 'end'); }],
  ['unknown', '/c/nothing', async (page) => screen(page, 'end')],
  ['no-such-page', '/somewhere', async (page) => screen(page, 'end')],
  ['call-1', '/gallery/?people=1', async (page) => screen(page, 'call')],
  ['call-2', '/gallery/?people=2', async (page) => screen(page, 'call')],
  ['call-5', '/gallery/?people=5', async (page) => screen(page, 'call')],
  ['call-30', '/gallery/?people=30', async (page) => screen(page, 'call')],
  ['call-speaker', '/gallery/?people=7&mode=speaker', async (page) => screen(page, 'call')],
  ['call-share', '/gallery/?people=6&share', async (page) => screen(page, 'call')],
  ['call-chat', '/gallery/?people=4', async (page) => { await page.getByTestId('chat').click(); await page.getByTestId('chat-input').waitFor(); }],
  ['call-people', '/gallery/?people=9&lobby', async (page) => { await page.getByTestId('people').click(); await page.getByTestId('person-menu').nth(3).click(); }],
  ['call-remove', '/gallery/?people=4', async (page) => { await page.getByTestId('people').click(); await page.getByTestId('person-menu').first().click(); await page.getByTestId('remove-person').click(); await page.getByTestId('confirm').waitFor(); }],
  ['call-listener', '/gallery/?people=4&listener', async (page) => { await page.getByTestId('chat').click(); await page.locator('.chat-off').waitFor(); }],
  ['call-quiet', '/gallery/?people=4&quiet', async (page) => { await page.getByTestId('chat').click(); await page.locator('#chat-rule').waitFor(); }],
  ['call-reconnecting', '/gallery/?people=4&reconnecting', async (page) => page.getByTestId('reconnecting').waitFor()],
  ['call-blocked', '/gallery/?people=4&blocked', async (page) => page.getByTestId('start-audio').waitFor()],
  ['call-settings', '/gallery/?people=4', async (page) => { await page.getByTestId('settings').click(); await page.getByTestId('figures').waitFor(); }],
  ['call-leave', '/gallery/?people=4', async (page) => { await page.getByTestId('leave').click(); await page.getByTestId('leave-now').waitFor(); }],
  ['call-end', '/gallery/?people=4', async (page) => { await page.getByTestId('leave').click(); await page.getByTestId('end-for-all').click(); await page.getByTestId('end-confirm').waitFor(); }],
];

const VIEWPORTS = [
  { name: '1280-light-de', width: 1280, height: 800, scheme: 'light', lang: 'de-DE' },
  { name: '360-dark-en', width: 360, height: 740, scheme: 'dark', lang: 'en-GB' },
  // 1280 px at 400 %, where WCAG wants the page to reflow.
  { name: '320-light-en', width: 320, height: 256, scheme: 'light', lang: 'en-GB' },
];

await build({ configFile: join(root, 'scripts/gallery/vite.config.ts') });
mkdirSync(pictures, { recursive: true });
const server = await serve(root);
const profile = mkdtempSync(join(tmpdir(), 'plenum-screens-'));
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  headless: true,
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-quic', '--no-first-run',
    '--use-fake-ui-for-media-stream', '--use-fake-device-for-media-stream', '--disable-domain-reliability',
  ],
});
try {
  for (const viewport of VIEWPORTS.filter((candidate) => size === undefined || candidate.name.includes(size))) {
    for (const [name, path, act] of SCENES) {
      if (only === undefined || name.includes(only)) {
        await look(viewport, name, path, act);
      }
    }
  }
  if (only === undefined || only === 'keyboard') {
    await keyboard();
  }
} finally {
  await browser.close();
  server.close();
  rmSync(profile, { recursive: true, force: true });
}
for (const fault of faults) {
  console.error(`error: ${fault}`);
}
console.log(`${faults.length} findings; pictures in .cache/screens/`);
process.exitCode = faults.length === 0 ? 0 : 1;

async function look(viewport, name, path, act) {
  const where = `${name} at ${viewport.name}`;
  const context = await browser.newContext({ viewport, locale: viewport.lang, colorScheme: viewport.scheme, permissions: ['camera', 'microphone'], bypassCSP: false });
  const page = await context.newPage();
  page.setDefaultTimeout(8000);
  page.on('request', (request) => {
    if (!request.url().startsWith(server.url) && !request.url().startsWith('blob:')) {
      faults.push(`${where}: asks ${request.url()}`);
    }
  });
  page.on('pageerror', (error) => faults.push(`${where}: ${error.message}`));
  page.on('console', (message) => {
    // The 404 of an unknown conference is what that scene is about.
    if (message.type() === 'error' && name !== 'unknown') {
      faults.push(`${where}: console: ${message.text()}`);
    }
  });
  try {
    const language = path.startsWith('/gallery/') ? `${path}&lang=${viewport.lang}` : path;
    await page.goto(server.url + language);
    await act(page);
    await page.waitForTimeout(250);
    await page.screenshot({ path: join(pictures, `${name}-${viewport.name}.png`), fullPage: !path.startsWith('/gallery/') });
    const sideways = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    if (sideways > 0) {
      faults.push(`${where}: scrolls sideways by ${sideways} px`);
    }
    const cut = await page.evaluate(() =>
      [...document.querySelectorAll('.bar button, .call-head button, .panel-head button, form button, .actions > *')]
        .filter((element) => element.getBoundingClientRect().right > window.innerWidth + 1 || element.getBoundingClientRect().left < -1)
        .map((element) => element.getAttribute('data-testid') ?? element.textContent),
    );
    if (cut.length > 0) {
      faults.push(`${where}: cut off: ${cut.join(', ')}`);
    }
    if (page.url().includes('#')) {
      faults.push(`${where}: the secret stands in the address bar`);
    }
    // Through the debugger's own world: the page's policy forbids foreign scripts, and stays as it is.
    const found = await runAxe(context, page);
    for (const violation of found) {
      const line = `${where}: axe ${violation.impact} ${violation.id}: ${violation.nodes.join(' | ')}`;
      if (violation.impact === 'serious' || violation.impact === 'critical') {
        faults.push(line);
      } else {
        console.log(line);
      }
    }
  } catch (error) {
    faults.push(`${where}: ${error instanceof Error ? error.message.split('\n')[0] : error}`);
    await page.screenshot({ path: join(pictures, `${name}-${viewport.name}-failed.png`) }).catch(() => {});
  }
  await context.close();
}

/** Nothing but Tab, Space, Enter, Escape and letters: into the lobby, and through the dialogs of a call. */
async function keyboard() {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: 'en-GB', permissions: ['camera', 'microphone'] });
  const page = await context.newPage();
  page.setDefaultTimeout(8000);
  const focused = () =>
    page.evaluate(() => {
      const element = document.activeElement;
      const style = element ? getComputedStyle(element) : null;
      return { hook: element?.getAttribute('data-testid') ?? element?.tagName ?? '', seen: style !== null && style.outlineStyle !== 'none' && Number.parseFloat(style.outlineWidth) >= 2 };
    });
  const tabTo = async (hook) => {
    for (let step = 0; step < 60; step += 1) {
      await page.keyboard.press('Tab');
      const now = await focused();
      if (!now.seen && now.hook !== 'BODY') {
        faults.push(`keyboard: the focus is not seen on ${now.hook}`);
      }
      if (now.hook === hook) {
        return;
      }
    }
    throw new Error(`${hook} is not reached by Tab`);
  };
  try {
    await page.goto(`${server.url}/c/lobby`);
    await screen(page, 'prejoin');
    await tabTo('toggle-mic');
    await page.keyboard.press('Space');
    await page.locator('[data-testid=toggle-mic][aria-pressed=true]').waitFor();
    await tabTo('ack-protocol');
    await page.keyboard.press('Space');
    await tabTo('name');
    await page.keyboard.type('Robin');
    await tabTo('password');
    await page.keyboard.type('geheim');
    await page.keyboard.press('Enter');
    await screen(page, 'lobby');
    if ((await focused()).hook !== 'H1') {
      faults.push('keyboard: a new page does not take the focus to its heading');
    }
    await page.goto(`${server.url}/gallery/?people=4&lang=en`);
    await screen(page, 'call');
    await tabTo('people');
    await page.keyboard.press('Enter');
    await page.locator('#panel').waitFor();
    await tabTo('person-menu');
    await page.keyboard.press('Enter');
    await tabTo('remove-person');
    await page.keyboard.press('Enter');
    await page.getByTestId('confirm').waitFor();
    await page.keyboard.press('Escape');
    await page.getByTestId('confirm').waitFor({ state: 'detached' });
    if ((await focused()).hook !== 'remove-person') {
      faults.push(`keyboard: a closed dialog gives the focus to ${(await focused()).hook}`);
    }
    await page.keyboard.press('Escape');
    await page.locator('#panel').waitFor({ state: 'detached' });
    if ((await focused()).hook !== 'people') {
      faults.push(`keyboard: a closed panel gives the focus to ${(await focused()).hook}`);
    }
    await page.keyboard.press('Alt+Shift+C');
    await page.getByTestId('chat-input').waitFor();
  } catch (error) {
    faults.push(`keyboard: ${error instanceof Error ? error.message.split('\n')[0] : error}`);
  }
  await context.close();
}

async function runAxe(context, page) {
  const session = await context.newCDPSession(page);
  const { frameTree } = await session.send('Page.getFrameTree');
  const { executionContextId } = await session.send('Page.createIsolatedWorld', { frameId: frameTree.frame.id, worldName: 'axe' });
  await session.send('Runtime.evaluate', { contextId: executionContextId, expression: axe });
  const { result, exceptionDetails } = await session.send('Runtime.evaluate', {
    contextId: executionContextId,
    awaitPromise: true,
    returnByValue: true,
    expression: `axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'] }).then((r) => r.violations.map((v) => ({ id: v.id, impact: v.impact, nodes: v.nodes.slice(0, 4).map((n) => n.target.join(' ') + ' ' + (n.failureSummary ?? '').split('\\n').slice(1, 2).join(' ')) })))`,
  });
  if (exceptionDetails) {
    throw new Error(`axe: ${exceptionDetails.text}`);
  }
  return result.value;
}
