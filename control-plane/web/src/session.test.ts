// SPDX-License-Identifier: EUPL-1.2
import { describe, expect, it } from 'vitest';

import { PlenumError, type Reason } from './errors';
import { type CallPort, Session } from './session';
import { events, FakeNetwork, FakeStorage, json } from './testing';

const ABOUT = { conference: { displayName: 'Rat' }, tenant: { name: 'Stadt' }, state: 'open', passwordRequired: true };
const ADMITTED = ['admitted', { token: 'token', url: '', identity: 'g_1', role: 'Guest' }] as const;
const FORM = { name: 'Robin', password: '', acknowledged: [] };

class FakeCall implements CallPort {
  token = '';
  left = false;
  ended: (reason: Reason) => void = () => undefined;

  constructor(readonly failure: PlenumError | null) {}

  entersMuted: boolean | null = null;

  connect(token: string, entersMuted: boolean): Promise<void> {
    this.token = token;
    this.entersMuted = entersMuted;
    return this.failure ? Promise.reject(this.failure) : Promise.resolve();
  }
  leave(): Promise<void> {
    this.left = true;
    this.ended('Left');
    return Promise.resolve();
  }
  onEnded(listener: (reason: Reason) => void): void {
    this.ended = listener;
  }
}

function make(hash = '', memory = new FakeStorage(), pathname = '/c/room', canTakePart = true) {
  const network = new FakeNetwork();
  const calls: FakeCall[] = [];
  const failures: (PlenumError | null)[] = [];
  const bar = { cleared: 0 };
  const session = new Session<FakeCall>({
    fetch: network.fetch,
    setTimeout: network.setTimeout,
    clearTimeout: network.clearTimeout,
    location: { pathname, hash },
    clearFragment: () => {
      bar.cleared += 1;
    },
    memory,
    random: () => 0.5,
    randomId: () => 'client',
    createCall: () => {
      const call = new FakeCall(failures.shift() ?? null);
      calls.push(call);
      return Promise.resolve(call);
    },
    canTakePart: () => canTakePart,
  });
  const kinds: string[] = [];
  session.on('change', () => {
    const { screen } = session;
    const kind = screen.kind === 'waiting' ? `waiting ${screen.reason}` : screen.kind;
    if (kinds.at(-1) !== kind) {
      kinds.push(kind);
    }
  });
  return { session, network, calls, failures, bar, memory, kinds };
}

async function until(condition: () => boolean): Promise<void> {
  for (let turn = 0; turn < 2000 && !condition(); turn += 1) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  expect(condition()).toBe(true);
}

describe('the way into a conference', () => {
  it('tells the call who enters muted, and takes nobody for muted whom the door does not name', async () => {
    for (const [told, entersMuted] of [[{ entersMuted: true }, true], [{ entersMuted: 'yes' }, false], [{}, false]] as const) {
      const { session, network, calls } = make('#p=geheim');
      network.next(json(ABOUT), events([['admitted', { ...ADMITTED[1], ...told }]], true));
      await session.start();
      await session.enter(FORM);
      expect(calls[0]?.entersMuted).toBe(entersMuted);
    }
  });

  it('leads from the link over the door into the call, with the password of the link', async () => {
    const { session, network, calls, bar, kinds } = make('#p=geheim');
    network.next(json(ABOUT), events([ADMITTED], true));
    await session.start();
    expect(bar.cleared).toBe(1);
    expect(session.asksPassword).toBe(false);
    await session.enter(FORM);
    expect(kinds).toEqual(['loading', 'prejoin', 'connecting', 'call']);
    expect(network.bodyOf(1)).toEqual({ name: 'Robin', password: 'geheim', acknowledged: [], clientId: 'client' });
    expect(calls[0]?.token).toBe('token');
  });

  it('shows waiting and lobby as the door tells them', async () => {
    const { session, network, kinds } = make('#p=geheim');
    network.next(json(ABOUT), events([['waiting', { reason: 'NotYetTime' }], ['waiting', { reason: 'NotOpened' }], ['lobby', { position: 1 }], ADMITTED], true));
    await session.start();
    await session.enter(FORM);
    expect(kinds).toEqual(['loading', 'prejoin', 'connecting', 'waiting NotYetTime', 'waiting NotOpened', 'lobby', 'connecting', 'call']);
  });

  it('keeps secrets over a reload, in the memory of the tab and nowhere else', async () => {
    const first = make('#k=key');
    first.network.next(json(ABOUT));
    await first.session.start();
    const second = make('', first.memory);
    second.network.next(json(ABOUT), events([ADMITTED], true));
    await second.session.start();
    expect(second.session.isOpener).toBe(true);
    expect(second.session.asksPassword).toBe(false);
    await second.session.enter(FORM);
    expect(second.network.bodyOf(1)).toMatchObject({ openerKey: 'key' });
    expect(second.network.calls.every((call) => !call.path.includes('key'))).toBe(true);
  });

  it('asks for the password again when that of the link is wrong', async () => {
    const { session, network } = make('#p=old');
    network.next(json(ABOUT), events([['refused', { reason: 'WrongPassword' }]]), events([ADMITTED], true));
    await session.start();
    await session.enter(FORM);
    expect(session.screen).toMatchObject({ kind: 'prejoin', problem: { reason: 'WrongPassword' } });
    expect(session.asksPassword).toBe(true);
    await session.enter({ ...FORM, password: 'new' });
    expect(network.bodyOf(2)).toMatchObject({ password: 'new' });
    expect(session.screen.kind).toBe('call');
  });

  it('tries again by itself while the server is away, and says so', async () => {
    const { session, network, kinds } = make('#p=geheim');
    network.next(new TypeError('down'), json({ error: { reason: 'Unavailable' } }, 503, { 'retry-after': '1' }), json(ABOUT));
    await session.start();
    network.next(json({ error: { reason: 'NoCapacity' } }, 503), new TypeError('down'), events([['waiting', { reason: 'NotOpened' }]]), events([ADMITTED], true));
    await session.enter(FORM);
    expect(session.screen.kind).toBe('call');
    expect(kinds).toContain('waiting NoCapacity');
  });

  it('ends with a reason where nothing is to be hoped for', async () => {
    for (const [answer, reason] of [[json({ error: { reason: 'UnknownConference' } }, 404), 'UnknownConference'], [json({ error: { reason: 'SomethingNew' } }, 403), 'Unknown']] as const) {
      const { session, network } = make();
      network.next(answer);
      await session.start();
      expect(session.screen).toMatchObject({ kind: 'end', reason });
    }
    const { session, network } = make('#p=x');
    network.next(json(ABOUT), events([['refused', { reason: 'Denied' }]]));
    await session.start();
    await session.enter(FORM);
    expect(session.screen).toMatchObject({ kind: 'end', reason: 'Denied' });
  });

  it('goes back to the door when the room cannot be joined, but not for ever when media never come', async () => {
    const { session, network, failures, calls } = make('#p=x');
    network.next(json(ABOUT), ...Array.from({ length: 9 }, () => events([ADMITTED], true)));
    failures.push(PlenumError.unavailable('503', null), ...Array.from({ length: 8 }, () => PlenumError.refused('MediaFailure')));
    await session.start();
    await session.enter(FORM);
    expect(session.screen).toMatchObject({ kind: 'end', reason: 'MediaFailure' });
    expect(calls).toHaveLength(4);
  });

  it('stops waiting when somebody goes back, and lets go of the stream', async () => {
    const { session, network } = make('#p=x');
    let aborted = false;
    const waiting = events([['waiting', { reason: 'NotOpened' }]], true);
    network.next(json(ABOUT), (init) => {
      init?.signal?.addEventListener('abort', () => {
        aborted = true;
      });
      return waiting(init);
    });
    await session.start();
    const entering = session.enter(FORM);
    await until(() => session.screen.kind === 'waiting');
    session.cancel();
    await entering;
    expect(aborted).toBe(true);
    expect(session.screen).toMatchObject({ kind: 'prejoin', problem: null });
  });

  it('shows why a call ended, and leads back to the form', async () => {
    const { session, network, calls } = make('#p=x');
    network.next(json(ABOUT), events([ADMITTED], true), json(ABOUT));
    await session.start();
    await session.enter(FORM);
    calls[0]?.ended('Removed');
    expect(session.screen).toMatchObject({ kind: 'end', reason: 'Removed' });
    await session.load();
    expect(session.screen.kind).toBe('prejoin');
    expect(session.name).toBe('Robin');
  });

  it('knows the start page, wrong addresses and browsers that cannot', async () => {
    for (const [path, kind, able] of [['/', 'home', true], ['/somewhere', 'end', true], ['/c/room', 'end', false]] as const) {
      const { session } = make('', new FakeStorage(), path, able);
      await session.start();
      expect(session.screen.kind).toBe(kind);
    }
  });

  it('takes a new link of the same conference from the address bar', async () => {
    const { session, network, bar } = make('#p=old');
    network.next(json(ABOUT), json(ABOUT));
    await session.start();
    session.handleFragment('#k=key');
    await until(() => session.screen.kind === 'prejoin');
    expect(session.isOpener).toBe(true);
    expect(bar.cleared).toBe(2);
    session.handleFragment('#main');
    expect(session.isOpener).toBe(true);
  });
});
