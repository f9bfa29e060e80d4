// SPDX-License-Identifier: EUPL-1.2
import type { JSX } from 'preact';
import { useEffect, useState } from 'preact/hooks';

import type { Call } from '../room';
import { useChange, useT } from './context';
import { Icon, type IconName } from './Icon';

/** What stands beside the stage. */
export type Panel = 'people' | 'chat';

const KEYS = 'Alt+Shift+';

/** Controls of the call; each has a key together with Alt and Shift. */
export function Bar({ call, panel, setPanel, onLeave }: { readonly call: Call; readonly panel: Panel | null; readonly setPanel: (panel: Panel | null) => void; readonly onLeave: () => void }): JSX.Element {
  const t = useT();
  useChange(call);
  useChange(call.chat);
  useChange(call.lobby);
  const [busy, setBusy] = useState<ReadonlySet<string>>(new Set());
  const { own } = call;
  const me = call.roster.me;
  const on = (track: { readonly muted: boolean } | undefined): boolean => track !== undefined && !track.muted;
  const microphone = on(me?.tracks.microphone);
  const camera = on(me?.tracks.camera);
  const screen = me?.tracks.screen_share !== undefined;
  const hand = (me?.hand ?? null) !== null;
  const waiting = own.moderator ? call.lobby.entries.length : 0;
  const unread = call.chat.unread;
  const canShare = 'mediaDevices' in navigator && 'getDisplayMedia' in navigator.mediaDevices;

  // While the browser asks for a permission, a second click must not start a second attempt.
  const once = (name: string, run: () => Promise<unknown>): void => {
    if (busy.has(name)) {
      return;
    }
    setBusy((before) => new Set(before).add(name));
    void run().finally(() => {
      setBusy((before) => {
        const next = new Set(before);
        next.delete(name);
        return next;
      });
    });
  };
  const toggle = {
    mic: (): void => once('mic', () => call.setMicrophone(!microphone)),
    camera: (): void => once('camera', () => call.setCamera(!camera)),
    screen: (): void => once('screen', () => call.setScreenShare(!screen)),
    hand: (): void => once('hand', () => call.setHand(!hand)),
    people: (): void => setPanel(panel === 'people' ? null : 'people'),
    chat: (): void => setPanel(panel === 'chat' ? null : 'chat'),
  };

  useEffect(() => {
    const press = (event: KeyboardEvent): void => {
      if (!event.altKey || !event.shiftKey || event.ctrlKey || event.metaKey) {
        return;
      }
      const run = { KeyM: own.may.microphone ? toggle.mic : null, KeyV: own.may.camera ? toggle.camera : null, KeyH: own.mayRaiseHand ? toggle.hand : null, KeyP: toggle.people, KeyC: toggle.chat }[event.code];
      if (run) {
        event.preventDefault();
        run();
      }
    };
    document.addEventListener('keydown', press);
    return () => document.removeEventListener('keydown', press);
  });

  return (
    <nav id="bar" class="bar" aria-label={t('call.bar')} tabIndex={-1}>
      <div class="bar-group">
        <BarButton
          id="mic"
          icon={microphone ? 'mic' : 'micOff'}
          label={t('call.mic.label')}
          action={!own.may.microphone ? t('call.denied.microphone') : microphone ? t('call.mic.on') : t('call.mic.off')}
          pressed={microphone}
          tone={microphone ? 'on' : 'off'}
          disabled={!own.may.microphone}
          busy={busy.has('mic')}
          keys={`${KEYS}M`}
          onClick={toggle.mic}
        />
        <BarButton
          id="camera"
          icon={camera ? 'camera' : 'cameraOff'}
          label={t('call.camera.label')}
          action={!own.may.camera ? t('call.denied.camera') : camera ? t('call.camera.on') : t('call.camera.off')}
          pressed={camera}
          tone={camera ? 'on' : 'off'}
          disabled={!own.may.camera}
          busy={busy.has('camera')}
          keys={`${KEYS}V`}
          onClick={toggle.camera}
        />
        {canShare && (
          <BarButton
            id="screen-share"
            icon="screen"
            label={t('call.screen.label')}
            action={!own.may.screen_share ? t('call.denied.screen') : screen ? t('call.screen.on') : t('call.screen.off')}
            pressed={screen}
            tone={screen ? 'active' : 'plain'}
            disabled={!own.may.screen_share}
            busy={busy.has('screen')}
            onClick={toggle.screen}
          />
        )}
        <BarButton
          id="hand"
          icon="hand"
          label={t('call.hand.label')}
          action={!own.mayRaiseHand ? t('call.denied.hand') : hand ? t('call.hand.on') : t('call.hand.off')}
          pressed={hand}
          tone={hand ? 'active' : 'plain'}
          disabled={!own.mayRaiseHand}
          busy={busy.has('hand')}
          keys={`${KEYS}H`}
          onClick={toggle.hand}
        />
      </div>
      <div class="bar-group">
        <BarButton
          id="people"
          icon="people"
          label={t('call.people')}
          action={waiting > 0 ? t('call.people.waiting', { count: waiting }) : t('call.people.count', { count: call.roster.people.length })}
          expanded={panel === 'people'}
          tone={panel === 'people' ? 'active' : 'plain'}
          count={waiting > 0 ? waiting : call.roster.people.length}
          urgent={waiting > 0}
          keys={`${KEYS}P`}
          onClick={toggle.people}
        />
        <BarButton
          id="chat"
          icon="chat"
          label={t('call.chat')}
          action={unread > 0 ? t('call.chat.unread', { count: unread }) : t('call.chat')}
          expanded={panel === 'chat'}
          tone={panel === 'chat' ? 'active' : 'plain'}
          {...(unread > 0 ? { count: unread } : {})}
          urgent={unread > 0}
          keys={`${KEYS}C`}
          onClick={toggle.chat}
        />
      </div>
      <div class="bar-group">
        <BarButton id="leave" icon="leave" label={t('call.leave')} action={t('call.leave')} tone="leave" onClick={onLeave} />
      </div>
    </nav>
  );
}

function BarButton({
  id,
  icon,
  label,
  action,
  tone,
  pressed,
  expanded,
  disabled = false,
  busy = false,
  count,
  urgent = false,
  keys,
  onClick,
}: {
  readonly id: string;
  readonly icon: IconName;
  readonly label: string;
  readonly action: string;
  readonly tone: 'on' | 'off' | 'plain' | 'active' | 'leave';
  readonly pressed?: boolean;
  readonly expanded?: boolean;
  readonly disabled?: boolean;
  readonly busy?: boolean;
  readonly count?: number;
  readonly urgent?: boolean;
  readonly keys?: string;
  readonly onClick: () => void;
}): JSX.Element {
  const t = useT();
  // A pressed button keeps its name and changes its state; the tooltip says what a click does. Denied and counting ones say more in the name.
  const more = (disabled || pressed === undefined) && action !== label ? action : null;
  return (
    <button
      type="button"
      id={`bar-${id}`}
      class={`bar-button bar-${tone}`}
      data-testid={id}
      aria-pressed={pressed}
      aria-expanded={expanded}
      aria-controls={expanded === true ? 'panel' : undefined}
      aria-disabled={disabled}
      aria-busy={busy}
      aria-keyshortcuts={keys}
      title={keys !== undefined && !disabled ? t('call.shortcut', { label: action, keys }) : action}
      onClick={() => {
        if (!disabled) {
          onClick();
        }
      }}
    >
      <span class="bar-icon">
        <Icon name={icon} size={24} />
        {count !== undefined && (
          <span class={urgent ? 'count count-urgent' : 'count'} aria-hidden="true">
            {count > 99 ? '99+' : count}
          </span>
        )}
      </span>
      <span class="bar-label">{label}</span>
      {more !== null && <span class="visually-hidden">, {more}</span>}
    </button>
  );
}
