// SPDX-License-Identifier: EUPL-1.2
import type { JSX } from 'preact';
import { useEffect } from 'preact/hooks';

import type { Conference } from '../door';
import { type Reason, REASONS } from '../errors';
import { useApp, useT } from './context';
import { Icon, type IconName } from './Icon';
import { BrandingText, Shell, useArrival } from './Shell';

const CALM: readonly Reason[] = ['Left', 'Ended'];

/** Refused, failed, removed or over: what happened, and what to do. */
export function End({ conference, reason, wire }: { readonly conference: Conference | null; readonly reason: Reason; readonly wire: string }): JSX.Element {
  const { session, devices } = useApp();
  const t = useT();
  const title = t(`reason.${reason}.title`);
  const heading = useArrival(title);
  useEffect(() => devices.forget(), [devices]);
  const remedy = REASONS[reason];
  const icon: IconName = reason === 'Left' ? 'check' : reason === 'Ended' ? 'door' : reason === 'Locked' ? 'lock' : 'warn';
  return (
    <Shell conference={conference} screen="end" reason={reason}>
      <div class="card wait">
        {conference && <p class="kicker">{conference.displayName}</p>}
        <div class={CALM.includes(reason) ? 'wait-sign' : 'wait-sign wait-sign-warn'}>
          <Icon name={icon} size={40} />
        </div>
        <h1 ref={heading} tabIndex={-1}>
          {title}
        </h1>
        <p class="wait-text">{t(`reason.${reason}.text`)}</p>
        {CALM.includes(reason) && <BrandingText conference={conference} name="Ended" />}
        <div class="actions">
          {remedy !== 'none' && (
            <button type="button" class="button button-primary" data-testid="rejoin" onClick={() => void session.load()}>
              {remedy === 'rejoin' ? t('end.rejoin') : t('end.retry')}
            </button>
          )}
          <a class="button" href="/">
            {t('end.home')}
          </a>
        </div>
        {reason === 'Unknown' && wire !== '' && <p class="hint">{t('end.code', { code: wire })}</p>}
      </div>
    </Shell>
  );
}
