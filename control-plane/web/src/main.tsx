// SPDX-License-Identifier: EUPL-1.2
import { type JSX, render } from 'preact';
import { useEffect } from 'preact/hooks';

import { brandProperties } from './contrast';
import { DEVICE_KINDS, type DeviceKind, Devices } from './devices';
import type { Door } from './door';
import { Locale } from './i18n';
import { meter } from './meter';
import { Session } from './session';
import { safeStorage } from './storage';
import { CallView } from './views/Call';
import { type App, AppContext, type JoinedCall, useApp, useChange, useT } from './views/context';
import { End } from './views/End';
import { Home } from './views/Home';
import { Prejoin } from './views/Prejoin';
import { Shell } from './views/Shell';
import { Waiting } from './views/Waiting';

const lasting = safeStorage(() => window.localStorage);
const tab = safeStorage(() => window.sessionStorage);
const random = (): number => Math.random();
const fetchHere = (input: string, init?: RequestInit): Promise<Response> => window.fetch(input, { credentials: 'omit', redirect: 'error', ...init });

const devices = new Devices({
  // Undefined without a secure context, whatever the types say.
  media: (navigator as { mediaDevices?: MediaDevices }).mediaDevices,
  storage: lasting,
  meter,
});

/** 128 random bits as text; `randomUUID` is missing without a secure context. */
function randomId(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** The engine is the larger part of the page and comes when it is needed; the form does not wait for it. */
async function createCall(door: Door): Promise<JoinedCall> {
  const { Call } = await import('./room');
  const call = new Call({ fetch: fetchHere, door, random, now: Date.now });
  return {
    call,
    // Every replica serves the page and every room: the own host always does, and no other is ever asked.
    connect: (token, entersMuted) =>
      call.connect(window.location.origin, token, {
        microphone: devices.wanted.microphone && !entersMuted,
        camera: devices.wanted.camera,
        devices: Object.fromEntries(DEVICE_KINDS.map((kind) => [kind, devices.chosen(kind)])) as Record<DeviceKind, string | null>,
      }),
    leave: () => call.leave(),
    onEnded: (listener) => {
      call.on('ended', listener);
    },
  };
}

const session = new Session<JoinedCall>({
  fetch: fetchHere,
  setTimeout: (run, ms) => window.setTimeout(run, ms),
  clearTimeout: (timer) => {
    if (typeof timer === 'number') {
      window.clearTimeout(timer);
    }
  },
  location: window.location,
  clearFragment: () => window.history.replaceState(null, '', window.location.pathname),
  memory: tab,
  random,
  randomId,
  createCall,
  canTakePart: () => typeof RTCPeerConnection === 'function' && typeof WebSocket === 'function',
});

const app: App = {
  locale: new Locale(navigator.languages, lasting),
  session,
  devices,
  now: () => new Date(),
  origin: window.location.origin,
};

function Page(): JSX.Element {
  const { locale } = useApp();
  useChange(session);
  useChange(locale);
  const { screen } = session;
  const conference = 'conference' in screen ? screen.conference : null;
  const colour = conference?.tenant.colour ?? null;
  useEffect(() => {
    void session.start();
  }, []);
  useEffect(() => {
    document.documentElement.lang = locale.language;
  }, [locale.language]);
  useEffect(() => {
    for (const [name, value] of Object.entries(brandProperties(colour))) {
      document.documentElement.style.setProperty(name, value);
    }
  }, [colour]);
  useEffect(() => {
    if (screen.kind === 'prejoin') {
      void import('./room');
    }
  }, [screen.kind]);
  switch (screen.kind) {
    case 'home':
      return (
        <Home
          open={(path) => {
            window.location.assign(path);
          }}
        />
      );
    case 'loading':
      return <Loading retrying={screen.retrying} />;
    case 'prejoin':
      return <Prejoin conference={screen.conference} problem={screen.problem} />;
    case 'connecting':
      return <Waiting key="connecting" conference={screen.conference} cause={screen} />;
    case 'waiting':
      return <Waiting key={`waiting/${screen.reason}`} conference={screen.conference} cause={screen} />;
    case 'lobby':
      return <Waiting key="lobby" conference={screen.conference} cause={screen} />;
    case 'call':
      return <CallView call={screen.call.call} conference={screen.conference} />;
    case 'end':
      return <End key={screen.reason} conference={screen.conference} reason={screen.reason} wire={screen.wire} />;
  }
}

function Loading({ retrying }: { readonly retrying: boolean }): JSX.Element {
  const t = useT();
  return (
    <Shell conference={null} screen="loading">
      <div class="wait wait-bare" role="status">
        <span class="spinner" aria-hidden="true" />
        <p>{retrying ? t('app.loading.retry') : t('app.loading')}</p>
      </div>
    </Shell>
  );
}

const root = document.getElementById('app');
if (root) {
  render(
    <AppContext.Provider value={app}>
      <Page />
    </AppContext.Provider>,
    root,
  );
  window.addEventListener('hashchange', () => session.handleFragment(window.location.hash));
}
