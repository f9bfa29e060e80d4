// SPDX-License-Identifier: EUPL-1.2
// A series of tests on one system with the people of one room. A test that fails leaves a picture of every page and
// what each page knew of its transports under target/e2e/failures/.

import assert from 'node:assert/strict';
import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';

import { Guest } from './meeting.mjs';
import { none } from './loss.mjs';
import { TARGET } from './paths.mjs';
import { System } from './system.mjs';

const OPEN_DOOR = `---
apiVersion: plenum.dev/v1alpha1
kind: Conference
metadata:
  name: open-door
  namespace: tenant-musterstadt
spec:
  displayName: Open door
  className: meeting
  lobby: "Off"
  openers:
    - type: Key
      key:
        name: open-door-opener
`;

const FAILURES = path.join(TARGET, 'failures');

/** Adds the conference `open-door` to the quickstart: a meeting without a lobby. */
export function openDoor({ manifests }) {
  appendFileSync(path.join(manifests, 'conferences.yaml'), OPEN_DOOR);
}

export function series(name, { edit, args } = {}) {
  const self = { people: [], system: null };

  before(async () => {
    process.env.E2E_SCENARIO = name;
    self.system = await System.start(name, { edit, args });
    console.log(`${name}: plenum up was ready after ${self.system.readyAfterMs} ms`);
  }, { timeout: 60_000 });

  after(async () => {
    none();
    await Promise.all(self.people.map((page) => page.leave()));
    if (!self.system) return;
    const code = await self.system.stop();
    assert.equal(code, 0, 'plenum up ends in good order');
  }, { timeout: 60_000 });

  /** A person's browser; it is closed at the end of the series. */
  self.arrive = async (person, options) => {
    const page = await Guest.arrive(person, options);
    self.people.push(page);
    return page;
  };

  self.go = async (page) => {
    self.people.splice(self.people.indexOf(page), 1);
    await page.leave();
  };

  self.test = (title, run, { seconds = 150 } = {}) =>
    test(title, { timeout: seconds * 1000 }, async (t) => {
      // Without its beginning nothing of a series means anything; each further test says so at once.
      if (self.begun === false) throw new Error(`${name} did not begin`);
      try {
        await run(t);
        self.begun = true;
      } catch (error) {
        self.begun ??= false;
        await record(`${name}-${title.replaceAll(/[^a-z0-9]+/gi, '-').slice(0, 60)}`, self.people);
        throw error;
      } finally {
        none();
      }
    });

  return self;
}

async function record(prefix, people) {
  mkdirSync(FAILURES, { recursive: true });
  for (const page of people) {
    const base = path.join(FAILURES, `${prefix}-${page.label}`);
    const attempt = (work) => Promise.race([work, new Promise((done) => setTimeout(done, 5000))]).catch((error) => String(error));
    await attempt(page.picture(`${base}.png`));
    const known = {
      shown: await attempt(page.shown()),
      identity: page.identity,
      transports: await attempt(page.transports()),
      inbound: await attempt(page.inbound()),
      outbound: await attempt(page.outbound()),
      errors: page.errors,
    };
    writeFileSync(`${base}.json`, JSON.stringify(known, null, 2));
  }
}
