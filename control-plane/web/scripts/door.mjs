// SPDX-License-Identifier: EUPL-1.2
// Speaks the contract between page and control plane, for looking at the pages before the door. Each room id is a scene.
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';

const CSP =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob: mediastream:; connect-src 'self'; worker-src 'self' blob:; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };
const SOON = new Date('2030-03-04T08:00:00Z').toISOString();

const NOTICES = [
  { id: 'protection', acknowledge: false, texts: [{ lang: 'de', text: 'Daten mit erhöhtem Schutzbedarf gehören nicht in diese Konferenz.' }, { lang: 'en', text: 'Data of raised protection need does not belong into this conference.' }] },
  { id: 'protocol', acknowledge: true, texts: [{ lang: 'de', text: 'Über die Sitzung wird ein Protokoll geführt, in dem die Anwesenden genannt werden.' }, { lang: 'en', text: 'Minutes are kept of this meeting; they name those present.' }] },
];
const TEXTS = [
  { key: 'Welcome', lang: 'de', text: 'Willkommen im digitalen Sitzungssaal der Stadt Musterhausen.' },
  { key: 'Welcome', lang: 'en', text: 'Welcome to the digital council chamber of Musterhausen.' },
  { key: 'Waiting', lang: 'de', text: 'Die Sitzungsleitung öffnet den Saal einige Minuten vor Beginn.' },
  { key: 'Ended', lang: 'de', text: 'Vielen Dank für Ihre Teilnahme.' },
  { key: 'Privacy', lang: 'de', text: 'https://example.org/datenschutz' },
  { key: 'Imprint', lang: 'de', text: 'Stadt Musterhausen, Rathausplatz 1' },
];

const SCENES = {
  open: { entry: [] },
  plain: { about: { notices: [], passwordRequired: false, lobby: false, tenant: { name: 'Grundschule am Wald', colour: '#ffd400', texts: [] } }, entry: [] },
  closed: { about: { state: 'closed' }, entry: [['refused', { reason: 'Closed' }]] },
  scheduled: { about: { state: 'scheduled', opensAt: SOON }, entry: [['waiting', { reason: 'NotYetTime', opensAt: SOON }]] },
  waiting: { about: { state: 'waiting', passwordRequired: false }, entry: [['waiting', { reason: 'NotOpened' }]] },
  capacity: { entry: [['waiting', { reason: 'NoCapacity' }]] },
  lobby: { entry: [['lobby', { position: 3 }]] },
  wrong: { entry: [['refused', { reason: 'WrongPassword' }]] },
  throttled: { entry: [['refused', { reason: 'Throttled', retryAfterSeconds: 42 }]] },
  denied: { entry: [['refused', { reason: 'Denied' }]] },
  strange: { entry: [['refused', { reason: 'SomethingNew' }]] },
};

/** Serves `dist`, the gallery, and the door; resolves to { url, close, seen }. */
export async function serve(root) {
  const seen = [];
  const server = createServer((request, response) => {
    const path = new URL(request.url ?? '/', 'http://localhost').pathname;
    const door = /^\/api\/v1\/c\/([a-z]+)(\/entry)?$/.exec(path);
    if (door) {
      let body = '';
      request.on('data', (piece) => (body += piece));
      request.on('end', () => {
        if (body !== '') {
          seen.push(JSON.parse(body));
        }
        answer(response, door[1], door[2] === '/entry');
      });
      return;
    }
    const wanted = path.startsWith('/gallery/') ? join(root, '.cache', normalize(path)) : join(root, 'dist', normalize(path));
    const file = extname(path) !== '' && existsSync(wanted) ? wanted : path.startsWith('/gallery/') ? join(root, '.cache/gallery/scripts/gallery/index.html') : join(root, 'dist/index.html');
    response.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream', 'content-security-policy': CSP, 'x-content-type-options': 'nosniff' });
    response.end(readFileSync(file));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve()));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    seen,
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

function answer(response, room, entry) {
  const scene = SCENES[room];
  if (!scene) {
    response.writeHead(404, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ error: { reason: 'UnknownConference', message: 'no such conference' } }));
    return;
  }
  if (!entry) {
    const about = {
      conference: { displayName: 'Sitzung des Hauptausschusses', roomId: room },
      tenant: { name: 'Stadt Musterhausen', colour: '#7a1f3d', texts: TEXTS },
      notices: NOTICES,
      state: 'open',
      passwordRequired: true,
      lobby: true,
      guests: true,
      ...scene.about,
    };
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify(about));
    return;
  }
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  response.write(': hello\n\n');
  for (const [name, data] of scene.entry) {
    response.write(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
    if (name === 'refused') {
      response.end();
    }
  }
}
