// SPDX-License-Identifier: EUPL-1.2
// Judges what a page has received: whose film, whether its counter rises, what is missing, whose tone.

import { FRAMES, FRAME_RATE, PEOPLE } from './people.mjs';

const BY_ID = new Map(Object.values(PEOPLE).map((person) => [person.id, person]));

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/**
 * Waits until `ask` answers with something; fails with the last answer's reason when the liveness bound has passed.
 * `ask` returns a value, or throws what is still missing.
 */
export async function until(what, ask, seconds = 30) {
  const end = Date.now() + seconds * 1000;
  let reason = 'nothing yet';
  for (;;) {
    try {
      const answer = await ask();
      if (answer) return answer;
      reason = `still ${JSON.stringify(answer)}`;
    } catch (error) {
      reason = error.message;
    }
    if (Date.now() > end) throw new Error(`${what}: not within ${seconds} s: ${reason}`);
    await sleep(200);
  }
}

/** How a film came through between two moments: frames, those missing between them, the longest gap. */
export function account(frames, since = 0, to = Infinity) {
  const shown = frames.filter((frame) => frame.at >= since && frame.at <= to);
  const result = { frames: shown.length, missing: 0, longestGapFrames: 0, longestGapMs: 0, backwards: 0, people: [...new Set(shown.map((frame) => frame.person))] };
  for (let at = 1; at < shown.length; at += 1) {
    const step = (shown[at].counter - shown[at - 1].counter + FRAMES) % FRAMES;
    const pause = shown[at].at - shown[at - 1].at;
    if (shown[at].person !== shown[at - 1].person) continue;
    // More than half a film ahead in less than that time is a step back.
    if (step > FRAMES / 2 && pause < ((FRAMES / 2) * 1000) / FRAME_RATE) {
      result.backwards += 1;
      continue;
    }
    result.missing += step - 1;
    result.longestGapFrames = Math.max(result.longestGapFrames, step - 1);
    result.longestGapMs = Math.max(result.longestGapMs, Math.round(pause));
  }
  return result;
}

/**
 * The films of others that a page shows, by the name of who is filmed; each with its account. Screens are left out,
 * as is everything without our code.
 */
export async function films(page, since = 0) {
  const found = new Map();
  for (const film of await page.frames()) {
    const counted = account(film.frames, since);
    if (counted.frames === 0 || film.source === 'screen_share') continue;
    if (counted.people.length !== 1) throw new Error(`one film shows several people: ${counted.people}`);
    const { name } = BY_ID.get(counted.people[0]);
    if (!found.has(name) || found.get(name).frames < counted.frames) found.set(name, { ...film, ...counted, list: film.frames });
  }
  return found;
}

/**
 * Waits until the page shows rising counters of exactly these people, each in a tile of their own identity.
 * `people` are pages of those who are seen.
 */
export async function sees(page, people, { frames = 15, seconds = 60, since } = {}) {
  const from = since ?? (await page.now());
  const names = people.map((other) => other.person.name);
  return until(`${page.label} sees ${names}`, async () => {
    const shown = await films(page, from);
    for (const other of people) {
      const film = shown.get(other.person.name);
      if (!film) throw new Error(`no film of ${other.person.name}; shown: ${[...shown.keys()]}`);
      if (film.frames < frames) throw new Error(`${other.person.name}: ${film.frames} frames`);
      if (film.backwards > 0) throw new Error(`${other.person.name}: the counter went back ${film.backwards} times`);
      if (other.identity && film.identity !== other.identity) {
        throw new Error(`${other.person.name} is shown as ${film.identity}, not as ${other.identity}`);
      }
    }
    for (const name of shown.keys()) if (!names.includes(name)) throw new Error(`${name} is shown, too`);
    return shown;
  }, seconds);
}

/** Waits until the page hears the tones of exactly these people, each from one track, played as theirs. */
export async function hears(page, people, { looks = 5, seconds = 60, since } = {}) {
  const from = since ?? (await page.now());
  return until(`${page.label} hears ${people.map((other) => other.person.name)}`, async () => {
    const tracks = await page.tones(from);
    const heard = new Map();
    for (const track of tracks) {
      for (const [tone, times] of Object.entries(track.heard)) {
        if (times >= looks) heard.set(Number(tone), [...(heard.get(Number(tone)) ?? []), track]);
      }
    }
    for (const other of people) {
      const from = heard.get(other.person.tone);
      if (!from) throw new Error(`no tone of ${other.person.name}; tracks: ${JSON.stringify(tracks)}`);
      if (from.length !== 1) throw new Error(`the tone of ${other.person.name} comes from ${from.length} tracks`);
      if (other.identity && from[0].identity !== other.identity) {
        throw new Error(`the tone of ${other.person.name} is played as ${from[0].identity}'s`);
      }
    }
    const own = people.map((other) => other.person.tone);
    for (const tone of heard.keys()) if (!own.includes(tone)) throw new Error(`a tone of ${tone} Hz is heard, too`);
    return heard;
  }, seconds);
}

/** Everybody sees and hears everybody else, and nobody else. */
export async function meet(people, options = {}) {
  for (const page of people) {
    const others = people.filter((other) => other !== page);
    await sees(page, others, options);
    await hears(page, others, options);
  }
}

/** The negotiated SRTP cipher of each transport that carries media; throws where it isn't AES-GCM. */
export async function ciphers(page) {
  const transports = (await page.transports()).filter((transport) => transport.dtlsState === 'connected');
  if (transports.length === 0) throw new Error(`${page.label}: no connected transport`);
  for (const transport of transports) {
    if (!/^(SRTP_)?AEAD_AES_(128|256)_GCM$/.test(transport.srtpCipher ?? '')) {
      throw new Error(`${page.label}: SRTP cipher is ${transport.srtpCipher}`);
    }
  }
  return [...new Set(transports.map((transport) => transport.srtpCipher))];
}

/** Throws where the page has asked any host but its own. */
export async function ownHostOnly(page, host) {
  const foreign = (await page.addresses()).filter((address) => {
    const url = new URL(address);
    return !['data:', 'blob:', 'about:'].includes(url.protocol) && url.host !== host;
  });
  if (foreign.length > 0) throw new Error(`${page.label} asked ${foreign.join(', ')}`);
}
