// SPDX-License-Identifier: EUPL-1.2
import { useEffect, useRef, useState } from 'preact/hooks';

import type { Call } from '../room';
import type { Announcement } from '../roster';
import { useApp } from './context';

/** A line that was said. */
export interface Line {
  readonly id: number;
  readonly text: string;
}

const SHOWN_MS = 6000;
const MOST_SHOWN = 4;
const MOST_SPOKEN = 20;
/** More than this at once is told as a number. */
const NAMED = 3;

/** Short messages for the eye and for screen readers: who comes and goes, hands, screens, chat, lobby, own state. */
export function useAnnouncements(call: Call): { readonly toasts: readonly Line[]; readonly spoken: readonly Line[]; readonly say: (text: string) => void } {
  const { locale } = useApp();
  const [toasts, setToasts] = useState<readonly Line[]>([]);
  const [spoken, setSpoken] = useState<readonly Line[]>([]);
  const next = useRef(0);
  const before = useRef<{ reconnecting: boolean; role: string | null }>({ reconnecting: false, role: null });

  const speak = (text: string): Line => {
    next.current += 1;
    const line = { id: next.current, text };
    setSpoken((lines) => [...lines, line].slice(-MOST_SPOKEN));
    return line;
  };
  const say = (text: string): void => {
    const line = speak(text);
    setToasts((lines) => [...lines, line].slice(-MOST_SHOWN));
    window.setTimeout(() => setToasts((lines) => lines.filter((shown) => shown.id !== line.id)), SHOWN_MS);
  };

  useEffect(() => {
    const { t } = locale;
    const named = (person: { readonly name: string }): string => (person.name === '' ? t('say.unnamed') : person.name);
    const tell = (what: Announcement): void => {
      switch (what.kind) {
        case 'joined':
        case 'left': {
          const many = what.people.length > NAMED || (locale.language === 'de' && what.people.length > 1);
          say(many ? t(`say.${what.kind}.many`, { count: what.people.length }) : t(`say.${what.kind}`, { names: locale.names(what.people.map(named)) }));
          break;
        }
        case 'hand':
          if (what.person.local) {
            speak(t(what.raised ? 'say.you.hand.up' : 'say.you.hand.down'));
          } else if (what.raised) {
            say(t('say.hand.up', { name: named(what.person) }));
          } else {
            speak(t('say.hand.down', { name: named(what.person) }));
          }
          break;
        case 'share':
          if (!what.person.local) {
            say(t(what.started ? 'say.share.start' : 'say.share.stop', { name: named(what.person) }));
          }
          break;
      }
    };
    const stops = [
      call.roster.on('announce', tell),
      call.chat.on('arrived', (message) => {
        const text = t('say.chat', { name: named(message), text: message.text.length > 120 ? `${message.text.slice(0, 119)}…` : message.text });
        if (call.chat.unread > 0) {
          say(text);
        } else {
          speak(text);
        }
      }),
      call.lobby.on('arrived', (entries) => {
        const [first] = entries;
        say(entries.length === 1 && first ? t('say.lobby', { name: named(first) }) : t('say.lobby.many', { count: entries.length }));
      }),
      call.on('change', () => {
        const { reconnecting } = call.own;
        if (before.current.reconnecting && !reconnecting) {
          say(t('call.reconnected'));
        }
        before.current.reconnecting = reconnecting;
      }),
      call.move.on('calledOff', () => say(t('call.movesNot'))),
      call.on('mutedByOther', () => say(t('call.mutedByOther'))),
      call.roster.on('change', () => {
        const role = call.roster.me?.role ?? null;
        if (before.current.role !== null && role !== null && role !== before.current.role) {
          say(t('call.roleChanged', { role: t(`role.${role}`) }));
        }
        before.current.role = role ?? before.current.role;
      }),
    ];
    before.current.role = call.roster.me?.role ?? null;
    return () => {
      for (const stop of stops) {
        stop();
      }
    };
  }, [call, locale, locale.language]);

  return { toasts, spoken, say };
}
