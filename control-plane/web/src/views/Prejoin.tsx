// SPDX-License-Identifier: EUPL-1.2
import type { JSX } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';

import type { Conference, Notice } from '../door';
import { pickText } from '../i18n';
import type { Problem } from '../session';
import { useApp, useChange, useT } from './context';
import { DeviceFields } from './Devices';
import { Icon } from './Icon';
import { BrandingText, Shell, useArrival } from './Shell';

/** Everything before joining: whose conference, notices, devices, name. */
export function Prejoin({ conference, problem }: { readonly conference: Conference; readonly problem: Problem | null }): JSX.Element {
  const { session } = useApp();
  const t = useT();
  const heading = useArrival(conference.displayName);
  return (
    <Shell conference={conference} screen="prejoin" reason={problem?.reason}>
      <div class="prejoin">
        <div class="prejoin-head">
          <p class="kicker" data-testid="tenant">
            {conference.tenant.name === '' ? t('app.name') : t('prejoin.kicker', { tenant: conference.tenant.name })}
          </p>
          <h1 ref={heading} tabIndex={-1} data-testid="conference">
            {conference.displayName}
          </h1>
          <Status conference={conference} />
          <BrandingText conference={conference} name="Welcome" />
        </div>
        <Preview />
        <EntryForm key={session.asksPassword ? 'with' : 'without'} conference={conference} problem={problem} />
      </div>
    </Shell>
  );
}

function Status({ conference }: { readonly conference: Conference }): JSX.Element {
  const { locale, session, now } = useApp();
  const t = useT();
  const texts: string[] = [];
  if (conference.state === 'scheduled') {
    texts.push(conference.opensAt ? t('prejoin.status.scheduled', { when: locale.moment(conference.opensAt, now()) }) : t('prejoin.status.scheduled.unknown'));
  } else if (conference.state === 'open' || !session.isOpener) {
    texts.push(t(`prejoin.status.${conference.state}`));
  }
  if (session.isOpener && conference.state !== 'open') {
    texts.push(t('prejoin.opener'));
  }
  if (!session.isOpener && conference.lobby) {
    texts.push(t('prejoin.lobby'));
  }
  if (!session.isOpener && !conference.guests) {
    texts.push(t('prejoin.noguests'));
  }
  return (
    <p class={`status status-${conference.state}`}>
      <Icon name={conference.state === 'open' ? 'check' : conference.state === 'closed' ? 'lock' : 'clock'} size={20} />
      <span>{texts.join(' ')}</span>
    </p>
  );
}

function Preview(): JSX.Element {
  const { devices } = useApp();
  const t = useT();
  const video = useRef<HTMLVideoElement>(null);
  useChange(devices);
  useEffect(() => {
    void devices.refresh().then(() => devices.resume());
  }, [devices]);
  useEffect(() => {
    if (video.current) {
      video.current.srcObject = devices.camera;
    }
  }, [devices.camera]);
  const { microphone, camera } = devices.wanted;
  return (
    <section class="card preview" aria-labelledby="preview-title">
      <h2 id="preview-title" class="visually-hidden">
        {t('prejoin.check')}
      </h2>
      <div class="preview-picture">
        <video ref={video} data-testid="preview" class={camera ? 'mirrored' : 'hidden'} autoPlay playsInline muted aria-label={t('prejoin.preview')} />
        {!camera && (
          <div class="preview-empty">
            <Icon name="cameraOff" size={36} />
            <span>{t('prejoin.camera.off')}</span>
          </div>
        )}
        <div class="preview-toggles">
          <button
            type="button"
            class={microphone ? 'round round-on' : 'round round-off'}
            data-testid="toggle-mic"
            aria-pressed={microphone}
            aria-label={t('call.mic.label')}
            title={microphone ? t('prejoin.mic.on') : t('prejoin.mic.off')}
            disabled={!devices.available}
            onClick={() => void devices.setMicrophone(!microphone)}
          >
            <Icon name={microphone ? 'mic' : 'micOff'} />
          </button>
          <button
            type="button"
            class={camera ? 'round round-on' : 'round round-off'}
            data-testid="toggle-camera"
            aria-pressed={camera}
            aria-label={t('call.camera.label')}
            title={camera ? t('prejoin.camera.on') : t('prejoin.camera.off')}
            disabled={!devices.available}
            onClick={() => void devices.setCamera(!camera)}
          >
            <Icon name={camera ? 'camera' : 'cameraOff'} />
          </button>
        </div>
      </div>
      <Level on={microphone} />
      <div role="alert">
        {(['microphone', 'camera'] as const).map((what) => {
          const failure = devices.failures[what];
          return failure ? (
            <p key={what} class="message message-error">
              <Icon name="warn" size={20} />
              <span>
                <strong>{t(what === 'microphone' ? 'call.mic.label' : 'call.camera.label')}:</strong> {t(`device.${failure}`)}
              </span>
            </p>
          ) : null;
        })}
      </div>
      <details class="preview-devices" open={devices.list('audioinput').length > 0 && window.matchMedia('(min-width: 800px)').matches}>
        <summary>{t('prejoin.devices')}</summary>
        <DeviceFields />
      </details>
    </section>
  );
}

/** The level is drawn by a property, ten times a second, without rendering the page anew. */
function Level({ on }: { readonly on: boolean }): JSX.Element {
  const { devices } = useApp();
  const t = useT();
  const bar = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const show = (level: number): void => {
      bar.current?.style.setProperty('--level', `${level}%`);
      bar.current?.setAttribute('data-level', String(level));
    };
    show(0);
    return on ? devices.on('level', show) : undefined;
  }, [devices, on]);
  return (
    <div class="level-row">
      <Icon name={on ? 'mic' : 'micOff'} size={18} />
      <div ref={bar} class="level" data-testid="mic-level" role="img" aria-label={t('prejoin.level')}>
        <span />
      </div>
      <span class="hint">{on ? t('prejoin.level.hint') : t('prejoin.mic.off')}</span>
    </div>
  );
}

function EntryForm({ conference, problem }: { readonly conference: Conference; readonly problem: Problem | null }): JSX.Element {
  const { session, devices, locale } = useApp();
  const t = useT();
  const [name, setName] = useState(session.name);
  const [password, setPassword] = useState('');
  const [shown, setShown] = useState(false);
  const [accepted, setAccepted] = useState<ReadonlySet<string>>(new Set(session.acknowledged));
  const [tried, setTried] = useState(false);
  const wait = useCountdown(problem?.retryAfterSeconds ?? 0, problem);
  const asks = session.asksPassword;
  const notices = conference.notices.filter((notice) => pickText(notice.texts, locale.language) !== null);
  const missing = {
    name: name.trim() === '',
    password: asks && password === '',
    notices: notices.filter((notice) => notice.acknowledge && !accepted.has(notice.id)).map((notice) => notice.id),
  };
  useEffect(() => {
    if (problem) {
      document.getElementById(asks ? 'password' : 'name')?.focus();
    }
  }, [problem]);
  const submit = (event: Event): void => {
    event.preventDefault();
    setTried(true);
    const first = missing.notices[0] !== undefined ? `ack-${missing.notices[0]}` : missing.name ? 'name' : missing.password ? 'password' : null;
    if (first !== null) {
      document.getElementById(first)?.focus();
      return;
    }
    if (wait > 0) {
      return;
    }
    devices.release();
    void session.enter({ name: name.trim().slice(0, 64), password, acknowledged: [...accepted] });
  };
  return (
    <form class="card entry" onSubmit={submit} noValidate>
      <div role="alert">
        {problem && (
          <div class="message message-error" data-testid="form-error">
            <Icon name="warn" size={20} />
            <span>
              <strong>{t(`reason.${problem.reason}.title`)}.</strong> {t(`reason.${problem.reason}.text`)}
            </span>
          </div>
        )}
      </div>
      {wait > 0 && <p class="hint">{t('prejoin.retryIn', { seconds: wait })}</p>}
      {notices.length > 0 && (
        <fieldset class="notices">
          <legend>{t('prejoin.notices')}</legend>
          {notices.map((notice) => (
            <NoticeItem
              key={notice.id}
              notice={notice}
              accepted={accepted.has(notice.id)}
              wrong={tried && missing.notices.includes(notice.id)}
              onChange={(value) => {
                const next = new Set(accepted);
                if (value) {
                  next.add(notice.id);
                } else {
                  next.delete(notice.id);
                }
                setAccepted(next);
              }}
            />
          ))}
        </fieldset>
      )}
      <div class="field">
        <label for="name">{t('prejoin.name')}</label>
        <input
          id="name"
          data-testid="name"
          type="text"
          autocomplete="name"
          maxLength={64}
          required
          value={name}
          aria-describedby="name-hint"
          aria-invalid={tried && missing.name}
          onInput={(event) => setName(event.currentTarget.value)}
        />
        <p id="name-hint" class={tried && missing.name ? 'hint hint-error' : 'hint'}>
          {tried && missing.name ? t('prejoin.name.missing') : t('prejoin.name.hint')}
        </p>
      </div>
      {asks && (
        <div class="field">
          <label for="password">{t('prejoin.password')}</label>
          <div class="field-row">
            {/* Two elements would lose the focus; the type is the only thing that changes. */}
            <input
              id="password"
              data-testid="password"
              {...(shown ? { type: 'text' as const } : { type: 'password' as const })}
              autocomplete="off"
              spellcheck={false}
              maxLength={256}
              required
              value={password}
              aria-describedby="password-hint"
              aria-invalid={tried && missing.password}
              onInput={(event: { currentTarget: HTMLInputElement }) => setPassword(event.currentTarget.value)}
            />
            <button type="button" class="icon-button field-button" aria-pressed={shown} aria-label={shown ? t('prejoin.password.hide') : t('prejoin.password.show')} onClick={() => setShown(!shown)}>
              <Icon name="eye" />
            </button>
          </div>
          <p id="password-hint" class={tried && missing.password ? 'hint hint-error' : 'hint'}>
            {tried && missing.password ? t('prejoin.password.missing') : ''}
          </p>
        </div>
      )}
      <button type="submit" class="button button-primary button-wide" data-testid="join" aria-disabled={wait > 0}>
        {t('prejoin.join')}
      </button>
    </form>
  );
}

function NoticeItem({ notice, accepted, wrong, onChange }: { readonly notice: Notice; readonly accepted: boolean; readonly wrong: boolean; readonly onChange: (value: boolean) => void }): JSX.Element | null {
  const { locale } = useApp();
  const t = useT();
  const text = pickText(notice.texts, locale.language);
  if (!text) {
    return null;
  }
  return (
    <div class={wrong ? 'notice notice-wrong' : 'notice'} data-testid="notice">
      <p id={`notice-${notice.id}`} lang={text.lang}>
        {text.text}
      </p>
      {notice.acknowledge && (
        <label class="check">
          <input
            id={`ack-${notice.id}`}
            data-testid={`ack-${notice.id}`}
            type="checkbox"
            checked={accepted}
            required
            aria-describedby={`notice-${notice.id} notice-${notice.id}-error`}
            aria-invalid={wrong}
            onChange={(event) => onChange(event.currentTarget.checked)}
          />
          <span>{t('prejoin.ack')}</span>
        </label>
      )}
      <p id={`notice-${notice.id}-error`} class="hint hint-error">
        {wrong ? t('prejoin.ack.missing') : ''}
      </p>
    </div>
  );
}

/** Seconds left until one may try again. */
function useCountdown(seconds: number, since: unknown): number {
  const [left, setLeft] = useState(seconds);
  useEffect(() => {
    setLeft(seconds);
    if (seconds <= 0) {
      return undefined;
    }
    const timer = window.setInterval(() => setLeft((value) => Math.max(0, value - 1)), 1000);
    return () => window.clearInterval(timer);
  }, [since, seconds]);
  return Math.ceil(left);
}
