// SPDX-License-Identifier: EUPL-1.2
// The door and the signalling without a page: what a program with a stolen token or a guessed password would do.

import http from 'node:http';

import { HOST, ORIGIN } from './system.mjs';

export const roomIdOf = (link) => /\/c\/([^#?/]+)/.exec(link)[1];
export const passwordOf = (link) => new URLSearchParams(new URL(link).hash.slice(1)).get('p');

/** Asks to be let in and returns the first event that decides something. */
export async function entry(roomId, body, { within = 10_000 } = {}) {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), within);
  try {
    const response = await fetch(`${ORIGIN}/api/v1/c/${roomId}/entry`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ acknowledged: [], ...body }),
      signal: stop.signal,
    });
    if (!response.headers.get('content-type')?.startsWith('text/event-stream')) {
      return { status: response.status, event: 'error', data: await response.json().catch(() => null), retryAfter: response.headers.get('retry-after') };
    }
    let text = '';
    for await (const chunk of response.body) {
      text += Buffer.from(chunk).toString();
      const found = /event: ?(\w+)\ndata: ?(.*)\n/.exec(text);
      if (found) return { status: response.status, event: found[1], data: JSON.parse(found[2]) };
    }
    return { status: response.status, event: 'end', data: null };
  } finally {
    clearTimeout(timer);
    stop.abort();
  }
}

/** Tries to open the signalling with a token; returns the HTTP status, 101 for an upgrade. */
export function upgrade(token, query = '') {
  return new Promise((done, failed) => {
    const request = http.request(`${ORIGIN}/rtc?access_token=${encodeURIComponent(token)}&protocol=15&sdk=js&auto_subscribe=1${query}`, {
      headers: { connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13', 'sec-websocket-key': 'cGxlbnVtLWUyZS10ZXN0IQ==', host: HOST },
    });
    request.on('upgrade', (response, socket) => {
      socket.destroy();
      done(response.statusCode);
    });
    request.on('response', (response) => {
      response.resume();
      done(response.statusCode);
    });
    request.on('error', failed);
    request.end();
  });
}
