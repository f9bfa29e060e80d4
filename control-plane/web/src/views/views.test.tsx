// SPDX-License-Identifier: EUPL-1.2
// @vitest-environment happy-dom
import { type ComponentChildren, render } from 'preact';
import { act } from 'preact/test-utils';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { ChatLog } from '../chat';
import { Devices } from '../devices';
import { parseConference } from '../door';
import { Locale } from '../i18n';
import { LobbyList } from '../lobby';
import type { Call } from '../room';
import { Roster } from '../roster';
import type { Form, Problem } from '../session';
import { FakeStorage, person } from '../testing';
import { Chat } from './Chat';
import { type App, AppContext } from './context';
import { People } from './People';
import { Prejoin } from './Prejoin';
import { initials, shade } from './Tile';

let root: HTMLElement;

beforeEach(() => {
  root = document.createElement('div');
  document.body.append(root);
});

afterEach(() => {
  now(() => render(null, root));
  root.remove();
});

/** Runs, and lets everything be drawn. */
const now = (run: () => void): void => void act(run);
const find = (hook: string): HTMLElement => {
  const found = root.querySelector(`[data-testid="${hook}"]`);
  if (!(found instanceof HTMLElement)) {
    throw new Error(`no ${hook}`);
  }
  return found;
};
const has = (hook: string): boolean => root.querySelector(`[data-testid="${hook}"]`) !== null;
const type = (hook: string, value: string): void => {
  const field = find(hook) as HTMLInputElement;
  now(() => {
    field.value = value;
    field.dispatchEvent(new Event('input', { bubbles: true }));
  });
};
const submit = (): void => {
  now(() => {
    root.querySelector('form')?.dispatchEvent(new Event('submit', { bubbles: true, cancelable: true }));
  });
};

function show(children: ComponentChildren, more: Partial<{ asksPassword: boolean; isOpener: boolean; language: string }> = {}): Form[] {
  const entered: Form[] = [];
  const storage = new FakeStorage();
  const app = {
    locale: new Locale([more.language ?? 'en'], storage),
    devices: new Devices({ media: undefined, storage, meter: () => () => undefined }),
    session: { name: '', acknowledged: [], isOpener: more.isOpener ?? false, asksPassword: more.asksPassword ?? false, enter: (form: Form) => Promise.resolve(entered.push(form)) },
    now: () => new Date(),
    origin: 'http://localhost',
  } as unknown as App;
  now(() => render(<AppContext.Provider value={app}>{children}</AppContext.Provider>, root));
  return entered;
}

const conference = parseConference(
  {
    conference: { displayName: 'Council' },
    tenant: { name: 'Town' },
    passwordRequired: true,
    notices: [
      { id: 'info', acknowledge: false, texts: [{ lang: 'en', text: 'For information' }] },
      { id: 'consent', acknowledge: true, texts: [{ lang: 'de', text: 'Einwilligung' }, { lang: 'en', text: 'Consent' }] },
    ],
  },
  'room',
);

describe('the form before the door', () => {
  it('lets nobody in without consent, name and password, and leads to what is missing', () => {
    const entered = show(<Prejoin conference={conference} problem={null} />, { asksPassword: true });
    submit();
    expect(document.activeElement?.id).toBe('ack-consent');
    now(() => find('ack-consent').click());
    submit();
    expect(document.activeElement?.id).toBe('name');
    type('name', '  Robin ');
    submit();
    expect(document.activeElement?.id).toBe('password');
    expect(entered).toEqual([]);
    type('password', 'geheim');
    submit();
    expect(entered).toEqual([{ name: 'Robin', password: 'geheim', acknowledged: ['consent'] }]);
  });

  it('asks for no password that the link carries', () => {
    const entered = show(<Prejoin conference={conference} problem={null} />);
    expect(has('password')).toBe(false);
    now(() => find('ack-consent').click());
    type('name', 'Robin');
    submit();
    expect(entered).toHaveLength(1);
  });

  it('says what went wrong and waits as long as the door asks', () => {
    const problem: Problem = { reason: 'Throttled', retryAfterSeconds: 30 };
    const entered = show(<Prejoin conference={conference} problem={problem} />, { asksPassword: true });
    expect(find('form-error').textContent).toContain('Too many attempts');
    now(() => find('ack-consent').click());
    type('name', 'Robin');
    type('password', 'geheim');
    submit();
    expect(entered).toEqual([]);
  });

  it('shows notices in the language of the page', () => {
    show(<Prejoin conference={conference} problem={null} />, { language: 'de' });
    expect(root.textContent).toContain('Einwilligung');
    expect(root.textContent).toContain('For information');
  });
});

describe('the list of people', () => {
  const acted = (moderator: boolean): Call => {
    const roster = new Roster();
    roster.handlePeople([person('me', { local: true }), person('guest', { role: 'Guest', guest: true }), person('other')], true, 0);
    const lobby = new LobbyList();
    lobby.handlePacket(new TextEncoder().encode('{"entries":[{"id":"k","name":"Waiting"}],"locked":false}'));
    return { roster, lobby, own: { moderator } } as unknown as Call;
  };

  it('offers moderation to moderators only', () => {
    show(<People call={acted(false)} act={() => undefined} />);
    for (const hook of ['person-menu', 'lobby-entry', 'lock', 'mute-all']) {
      expect(has(hook), hook).toBe(false);
    }
  });

  it('shows moderators who waits, and the lock', () => {
    show(<People call={acted(true)} act={() => undefined} />);
    expect(has('lobby-entry')).toBe(true);
    expect(has('lock')).toBe(true);
    expect(root.querySelectorAll('[data-testid="person-menu"]')).toHaveLength(2);
  });

  it('never offers to make a guest a moderator, nor to act on oneself', () => {
    show(<People call={acted(true)} act={() => undefined} />);
    const row = (identity: string): Element | null => root.querySelector(`[data-testid="person"][data-identity="${identity}"]`);
    expect(row('me')?.querySelector('[data-testid="person-menu"]')).toBeNull();
    for (const identity of ['guest', 'other']) {
      now(() => (row(identity)?.querySelector('[data-testid="person-menu"]') as HTMLElement).click());
    }
    expect(row('guest')?.querySelector('[data-testid="role-Moderator"]')).toBeNull();
    expect(row('other')?.querySelector('[data-testid="role-Moderator"]')).not.toBeNull();
  });
});

describe('the chat', () => {
  it('keeps the text of a message that could not be sent', async () => {
    const call = { chat: new ChatLog(), own: { chat: 'Everyone' }, on: () => () => undefined, sendChat: () => Promise.resolve(false) } as unknown as Call;
    show(<Chat call={call} />);
    type('chat-input', 'important');
    await act(async () => {
      root.querySelector('form')?.dispatchEvent(new Event('submit', { bubbles: true, cancelable: true }));
      await Promise.resolve();
    });
    expect((find('chat-input') as HTMLTextAreaElement).value).toBe('important');
  });

  it('says who reads it where not everybody does', () => {
    const written = (rule: string) => show(<Chat call={{ chat: new ChatLog(), own: { chat: rule }, on: () => () => undefined } as unknown as Call} />);
    written('Moderators');
    expect(root.textContent).toContain('Only moderators');
    expect(has('chat-input')).toBe(true);
    written('Everyone');
    expect(root.textContent).not.toContain('Only moderators');
  });

  it('shows what others write as text, whatever it looks like', () => {
    const chat = new ChatLog();
    show(<Chat call={{ chat, own: { chat: 'Off' }, on: () => () => undefined } as unknown as Call} />);
    now(() => chat.handleMessage({ id: '1', identity: 'a', name: '<b>A</b>', text: '<img src=x onerror=alert(1)> https://example.org', at: 1, own: false }));
    expect(root.querySelector('img, b')).toBeNull();
    expect(root.querySelector('a')?.getAttribute('rel')).toContain('noopener');
    expect(has('chat-input')).toBe(false);
  });
});

describe('initials', () => {
  it('are those of the first and the last word, in any script', () => {
    expect(initials('Robin van der Beispiel')).toBe('RB');
    expect(initials('  ömer ')).toBe('Ö');
    expect(initials('(Vorsitz) Kim')).toBe('VK');
    expect(initials('李雷')).toBe('李');
    expect(initials('…')).toBe('');
  });

  it('stand on one of eight grounds', () => {
    const shades = Array.from({ length: 200 }, (_, index) => shade(`g_${index}`));
    expect(Math.min(...shades)).toBe(0);
    expect(Math.max(...shades)).toBe(7);
  });
});
