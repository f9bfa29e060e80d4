// SPDX-License-Identifier: EUPL-1.2
// Starts a browser for one person. A browser a person: the film and the tone are settings of the whole browser.

import { createWriteStream, mkdirSync } from 'node:fs';
import path from 'node:path';
import puppeteer from 'puppeteer-core';

import { fakeDevices } from './fake-devices.mjs';
import { film, tone } from './fixtures.mjs';
import { PEOPLE } from './people.mjs';
import { probe } from './probe.mjs';
import { TARGET } from './paths.mjs';

const TONES = Object.values(PEOPLE).map((person) => person.tone);
const LOGS = path.join(TARGET, 'logs');

const QUIET = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage', '--mute-audio',
  // A page in the background is throttled, and then the counting of frames is.
  '--disable-background-timer-throttling', '--disable-backgrounding-occluded-windows', '--disable-renderer-backgrounding',
];

async function chromium(person, size, language, camera) {
  return puppeteer.launch({
    browser: 'chrome',
    executablePath: '/usr/bin/chromium',
    headless: true,
    pipe: true,
    defaultViewport: size,
    acceptInsecureCerts: false,
    args: [
      ...QUIET,
      `--lang=${language}`, `--accept-lang=${language}`,
      '--autoplay-policy=no-user-gesture-required',
      '--use-fake-ui-for-media-stream',
      '--use-fake-device-for-media-stream=display-media-type=monitor',
      `--use-file-for-fake-video-capture=${camera ?? (await film(person))}`,
      `--use-file-for-fake-audio-capture=${await tone(person)}`,
    ],
  });
}

async function firefox(size, language) {
  return puppeteer.launch({
    browser: 'firefox',
    executablePath: '/usr/bin/firefox-esr',
    headless: true,
    defaultViewport: size,
    extraPrefsFirefox: {
      'media.navigator.streams.fake': true,
      'media.navigator.permission.disabled': true,
      'media.autoplay.default': 0,
      'media.autoplay.blocking_policy': 0,
      'intl.accept_languages': language,
      // Firefox's own calls home; they would fail in the namespace, and be counted.
      'network.captive-portal-service.enabled': false,
      'network.connectivity-service.enabled': false,
      'browser.safebrowsing.malware.enabled': false,
      'browser.safebrowsing.phishing.enabled': false,
      'services.settings.server': 'data:,',
    },
  });
}

/**
 * A person's browser with one page that is watched from its first script on.
 * `requests` holds the address of every request of the page and of every socket it opened.
 */
export class Person {
  static async arrive(person, { kind = 'chromium', size = { width: 1100, height: 700 }, language = 'en-GB', label = person.name.toLowerCase(), film: camera } = {}) {
    const browser = kind === 'firefox' ? await firefox(size, language) : await chromium(person, size, language, camera);
    const page = (await browser.pages())[0] ?? (await browser.newPage());
    const self = new this(person, browser, page, label);
    page.on('request', (request) => self.requests.push(request.url()));
    mkdirSync(LOGS, { recursive: true });
    self.console = createWriteStream(path.join(LOGS, `${process.env.E2E_SCENARIO ?? 'page'}-${label}.console.log`), { flags: 'a' });
    page.on('console', (message) => self.console.write(`${new Date().toISOString()} ${message.type()} ${message.text()}\n`));
    page.on('pageerror', (error) => {
      self.errors.push(String(error));
      self.console.write(`${new Date().toISOString()} PAGE ERROR ${error.stack ?? error}\n`);
    });
    await probe(page, TONES);
    if (kind === 'firefox') await fakeDevices(page, person);
    return self;
  }

  constructor(person, browser, page, label) {
    Object.assign(this, { person, browser, page, label, requests: [], errors: [] });
  }

  /** Every address that the page has asked for, sockets included. */
  async addresses() {
    const sockets = await this.page.evaluate(() => globalThis.__probe.sockets.map((entry) => entry.url));
    return [...this.requests, ...sockets];
  }

  now() {
    return this.page.evaluate(() => performance.now());
  }

  /** Milliseconds from opening the signalling socket to the first frame of somebody's film, by the page's own clock. */
  firstPictureMs() {
    return this.page.evaluate(() => {
      const opened = globalThis.__probe.sockets.at(-1)?.opened;
      const first = globalThis.__probe.frames().flatMap((film) => film.frames.map((frame) => frame.at));
      return Math.round(Math.min(...first) - opened);
    });
  }

  frames() {
    return this.page.evaluate(() => globalThis.__probe.frames());
  }

  tones(since = 0) {
    return this.page.evaluate((from) => globalThis.__probe.tones(from), since);
  }

  transports() {
    return this.page.evaluate(() => globalThis.__probe.transports());
  }

  inbound() {
    return this.page.evaluate(() => globalThis.__probe.inbound());
  }

  outbound() {
    return this.page.evaluate(() => globalThis.__probe.outbound());
  }

  async picture(file) {
    mkdirSync(path.dirname(file), { recursive: true });
    await this.page.screenshot({ path: file });
    return file;
  }

  async leave() {
    this.console.end();
    await this.browser.close().catch(() => {});
  }
}
