// SPDX-License-Identifier: EUPL-1.2
import type { JSX } from 'preact';

import type { Conference } from '../door';
import type { WaitReason } from '../session';
import { useApp, useT } from './context';
import { Icon, type IconName } from './Icon';
import { BrandingText, Shell, useArrival } from './Shell';

/** Why somebody sees this page. */
export type Cause =
  | { readonly kind: 'connecting'; readonly retrying: boolean }
  | { readonly kind: 'waiting'; readonly reason: WaitReason; readonly opensAt: Date | null }
  | { readonly kind: 'lobby'; readonly position: number | null };

/** The pages on which one waits: connecting, not opened, not yet time, no capacity, lobby. */
export function Waiting({ conference, cause }: { readonly conference: Conference; readonly cause: Cause }): JSX.Element {
  const { session, devices, locale, now } = useApp();
  const t = useT();
  let icon: IconName = 'clock';
  let title: string;
  let text: string;
  if (cause.kind === 'connecting') {
    title = t('waiting.connecting.title');
    text = cause.retrying ? t('waiting.connecting.retry') : t('waiting.connecting.text');
  } else if (cause.kind === 'lobby') {
    icon = 'door';
    title = t('waiting.lobby.title');
    text = t('waiting.lobby.text');
  } else {
    title = t(`waiting.${cause.reason}.title`);
    if (cause.reason === 'NotYetTime') {
      text = cause.opensAt ? t('waiting.NotYetTime.text', { when: locale.moment(cause.opensAt, now()) }) : t('waiting.NotYetTime.unknown');
    } else {
      text = t(`waiting.${cause.reason}.text`);
    }
  }
  const heading = useArrival(title);
  const { microphone, camera } = devices.wanted;
  return (
    <Shell conference={conference} screen={cause.kind} reason={cause.kind === 'waiting' ? cause.reason : undefined}>
      <div class="card wait">
        <p class="kicker">{conference.displayName}</p>
        <div class="wait-sign">
          {cause.kind === 'connecting' ? <span class="spinner" aria-hidden="true" /> : <Icon name={icon} size={40} />}
        </div>
        <h1 ref={heading} tabIndex={-1}>
          {title}
        </h1>
        <div role="status" class="wait-text">
          <p>{text}</p>
          {cause.kind === 'lobby' && cause.position !== null && cause.position > 0 && <p class="wait-position">{t('waiting.lobby.position', { position: cause.position })}</p>}
        </div>
        {cause.kind !== 'connecting' && <BrandingText conference={conference} name="Waiting" />}
        <ul class="wait-facts">
          <li>
            <Icon name="people" size={18} />
            {t('waiting.as', { name: session.name })}
          </li>
          {microphone && (
            <li>
              <Icon name="mic" size={18} />
              {t('waiting.mic')}
            </li>
          )}
          {camera && (
            <li>
              <Icon name="camera" size={18} />
              {t('waiting.camera')}
            </li>
          )}
          {!microphone && !camera && (
            <li>
              <Icon name="micOff" size={18} />
              {t('waiting.nothing')}
            </li>
          )}
        </ul>
        <button type="button" class="button" data-testid="cancel" onClick={() => session.cancel()}>
          {t('waiting.cancel')}
        </button>
      </div>
    </Shell>
  );
}
