// SPDX-License-Identifier: EUPL-1.2
// The views of the call over the real engine-free parts, fed with people that are made up here: for looking at, and for axe. Not part of the product.
import { render } from 'preact';

import { ChatLog } from '../../src/chat';
import { brandProperties } from '../../src/contrast';
import { Devices } from '../../src/devices';
import type { Conference } from '../../src/door';
import { Emitter } from '../../src/events';
import { Locale } from '../../src/i18n';
import { LobbyList } from '../../src/lobby';
import type { Call, OwnState } from '../../src/room';
import { type Person, type Role, Roster, type TrackState } from '../../src/roster';
import { Stage } from '../../src/stage';
import { safeStorage } from '../../src/storage';
import { CallView } from '../../src/views/Call';
import { type App, AppContext } from '../../src/views/context';

const wanted = new URLSearchParams(window.location.search);
const NAMES = ['Alex Muster', 'Robin Beispiel', 'Kim Vorlage', 'Sascha Probe', 'Toni Entwurf', 'Mika Modell', 'Jona Skizze', 'Luca Schema', 'Nicola Form', 'Charlie Test', 'Dominique Ansatz-Langername von Irgendwo'];

function person(index: number, more: Partial<Person> = {}): Person {
  const track = (sid: string, muted: boolean, media: number): TrackState => ({ sid, muted, media });
  const role: Role = index === 0 ? 'Moderator' : index === 1 ? 'Presenter' : index % 3 === 0 ? 'Guest' : 'Participant';
  return {
    identity: `person-${index}`,
    name: NAMES[index % NAMES.length] ?? '',
    local: index === 0,
    role,
    guest: role === 'Guest',
    hand: null,
    speaking: false,
    quality: index % 4 === 3 ? 'poor' : 'excellent',
    joinedAt: index,
    tracks: { microphone: track(`TR_AM${index}`, index % 3 !== 1, 1), ...(index % 2 === 0 ? { camera: track(`TR_VC${index}`, false, 1) } : {}) },
    ...more,
  };
}

/** A moving picture, so that pictures look like pictures. */
function picture(index: number, wide: boolean): MediaStream {
  const canvas = document.createElement('canvas');
  canvas.width = wide ? 1280 : 640;
  canvas.height = wide ? 720 : 360;
  const context = canvas.getContext('2d');
  const draw = (): void => {
    if (!context) {
      return;
    }
    const hue = (index * 67) % 360;
    const ground = context.createLinearGradient(0, 0, canvas.width, canvas.height);
    ground.addColorStop(0, `hsl(${hue} 30% 42%)`);
    ground.addColorStop(1, `hsl(${(hue + 40) % 360} 30% 24%)`);
    context.fillStyle = ground;
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = wide ? '#ffffff' : `hsl(${hue} 25% 78%)`;
    if (wide) {
      context.fillRect(90, 80, canvas.width - 180, canvas.height - 160);
      context.fillStyle = '#1f4e8c';
      context.font = '600 54px system-ui';
      context.fillText('Haushaltsplan 2027', 150, 190);
      context.fillStyle = '#8fa3bd';
      for (let line = 0; line < 6; line += 1) {
        context.fillRect(150, 250 + line * 54, 420 + ((line * 173) % 480), 18);
      }
    } else {
      context.beginPath();
      context.arc(canvas.width / 2, canvas.height * 0.42, canvas.height * 0.2, 0, 7);
      context.ellipse(canvas.width / 2, canvas.height * 1.02, canvas.height * 0.42, canvas.height * 0.4, 0, 0, 7);
      context.fill();
    }
  };
  draw();
  window.setInterval(draw, 100);
  return canvas.captureStream(10);
}

class Acted extends Emitter<{ change: []; ended: []; failed: []; mutedByOther: [] }> {
  readonly roster = new Roster();
  readonly stage = new Stage();
  readonly chat = new ChatLog();
  readonly lobby = new LobbyList();
  readonly moderation = {};
  readonly own: OwnState = {
    may: { microphone: true, camera: true, screen_share: !wanted.has('listener'), screen_share_audio: true },
    chat: wanted.has('listener') ? 'Off' : wanted.has('quiet') ? 'Moderators' : 'Everyone',
    mayRaiseHand: true,
    moderator: !wanted.has('listener'),
    audioBlocked: wanted.has('blocked'),
    reconnecting: wanted.has('reconnecting'),
  };

  attach(identity: string, source: string, element: HTMLMediaElement): () => void {
    element.srcObject = picture(Number(identity.split('-')[1]), source === 'screen_share');
    return () => undefined;
  }

  async figures(): Promise<object> {
    return { upKbps: 1240, downKbps: 3310, lossPercent: 0.2, roundTripMs: 24, protocol: 'udp', cipher: 'AEAD_AES_128_GCM' };
  }

  async startAudio(): Promise<void> {
    // Nothing plays here.
  }
}

const call = new Acted();
const count = Number(wanted.get('people') ?? '5');
const people = Array.from({ length: count }, (_, index) =>
  person(index, {
    ...(index === 2 ? { speaking: true, hand: 1_700_000_000_000 } : {}),
    ...(wanted.has('share') && index === 1 ? { tracks: { ...person(1).tracks, screen_share: { sid: 'TR_VS1', muted: false, media: 1 } } } : {}),
  }),
);
call.roster.handlePeople(people, true, 0);
call.stage.handlePeople(people);
call.stage.handleSpeakers(['person-2'], 10_000);
if (wanted.get('mode') === 'speaker') {
  call.stage.setMode('speaker');
}
const lines: readonly [number, string][] = [
  [1, 'Guten Morgen! Die Unterlagen liegen unter https://example.org/unterlagen.'],
  [1, 'Wir beginnen in zwei Minuten.'],
  [0, 'Danke, ich teile gleich den Bildschirm.'],
  [3, 'Ist das Protokoll der letzten Sitzung schon freigegeben?'],
];
lines.forEach(([index, text], at) => {
  call.chat.handleMessage({ id: String(at), identity: `person-${index}`, name: NAMES[index] ?? '', text, at: 1_700_000_000_000 + at * 40_000, own: index === 0 });
});
if (wanted.has('lobby')) {
  const entries = [
    { id: 'k1', name: 'Andrea Wartend', since: 1_700_000_000_000 },
    { id: 'k2', name: 'Chris Draußen', since: 1_700_000_060_000 },
  ];
  call.lobby.handlePacket(new TextEncoder().encode(JSON.stringify({ entries, locked: false })));
}

const colour = wanted.get('colour');
for (const [name, value] of Object.entries(brandProperties(colour === null ? null : `#${colour}`))) {
  document.documentElement.style.setProperty(name, value);
}
const conference = { displayName: 'Sitzung des Hauptausschusses', roomId: 'x', tenant: { name: 'Stadt Musterhausen', colour: null, texts: [] }, notices: [] } as unknown as Conference;
const memory = safeStorage(() => {
  throw new Error('nothing is kept');
});
const app = {
  locale: new Locale([wanted.get('lang') ?? 'en'], memory),
  session: {},
  devices: new Devices({ media: undefined, storage: memory, meter: () => () => undefined }),
  now: () => new Date(),
  origin: window.location.origin,
} as unknown as App;
document.documentElement.lang = app.locale.language;
const root = document.getElementById('app');
if (root) {
  render(
    <AppContext.Provider value={app}>
      <CallView call={call as unknown as Call} conference={conference} />
    </AppContext.Provider>,
    root,
  );
}
