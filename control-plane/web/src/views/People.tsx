// SPDX-License-Identifier: EUPL-1.2
import type { JSX } from 'preact';
import { useState } from 'preact/hooks';

import type { Call } from '../room';
import { type Person, ROLES } from '../roster';
import { useApp, useChange, useT } from './context';
import { Dialog } from './Dialog';
import { Icon } from './Icon';
import { initials, QualityBars, shade } from './Tile';

/** Who waits, who is in, and what a moderator can do about it. */
export function People({ call, act }: { readonly call: Call; readonly act: (run: () => Promise<void>) => void }): JSX.Element {
  const t = useT();
  useChange(call.roster);
  useChange(call.lobby);
  const { moderator } = call.own;
  const people = call.roster.people;
  const { locked } = call.lobby;
  const [removing, setRemoving] = useState<Person | null>(null);
  return (
    <div class="panel-scroll">
      {moderator && call.lobby.entries.length > 0 && <Lobby call={call} act={act} />}
      {moderator && locked === true && (
        <p class="hint lock-hint">
          <Icon name="lock" size={16} /> {t('people.locked')}
        </p>
      )}
      {moderator && (
        <div class="room-actions">
          {people.some((person) => !person.local && person.tracks.microphone?.muted === false) && (
            <button type="button" class="button button-small" data-testid="mute-all" onClick={() => act(() => call.moderation.muteAll(people))}>
              <Icon name="micOff" size={18} /> {t('people.muteAll')}
            </button>
          )}
          {locked !== null && (
            <button type="button" class="button button-small" data-testid="lock" data-locked={locked} onClick={() => act(() => call.moderation.setLocked(!locked))}>
              <Icon name="lock" size={18} /> {locked ? t('people.unlock') : t('people.lock')}
            </button>
          )}
        </div>
      )}
      <h3>{t('people.in', { count: people.length })}</h3>
      <ul class="people">
        {people.map((person) => (
          <PersonRow key={person.identity} call={call} person={person} moderator={moderator} act={act} onRemove={() => setRemoving(person)} />
        ))}
      </ul>
      {removing && (
        <Dialog title={t('people.remove.title', { name: nameOf(removing, t('say.unnamed')) })} onClose={() => setRemoving(null)}>
          <p>{t('people.remove.text', { name: nameOf(removing, t('say.unnamed')) })}</p>
          <div class="actions actions-end">
            <button type="button" class="button" onClick={() => setRemoving(null)}>
              {t('app.cancel')}
            </button>
            <button
              type="button"
              class="button button-danger"
              data-testid="confirm"
              onClick={() => {
                act(() => call.moderation.remove(removing.identity));
                setRemoving(null);
              }}
            >
              {t('people.remove.confirm')}
            </button>
          </div>
        </Dialog>
      )}
    </div>
  );
}

function nameOf(person: { readonly name: string }, fallback: string): string {
  return person.name === '' ? fallback : person.name;
}

function Lobby({ call, act }: { readonly call: Call; readonly act: (run: () => Promise<void>) => void }): JSX.Element {
  const { locale } = useApp();
  const t = useT();
  const entries = call.lobby.entries;
  return (
    <section class="lobby" aria-labelledby="lobby-title">
      <div class="lobby-head">
        <h3 id="lobby-title">{t('people.waiting', { count: entries.length })}</h3>
        {entries.length > 1 && (
          <button type="button" class="button button-small button-primary" data-testid="admit-all" onClick={() => act(() => call.moderation.admitAll())}>
            {t('people.admitAll')}
          </button>
        )}
      </div>
      <ul class="people">
        {entries.map((entry) => {
          const name = nameOf(entry, t('say.unnamed'));
          return (
            <li key={entry.id} class="person" data-testid="lobby-entry" data-id={entry.id}>
              <span class={`avatar avatar-small shade-${shade(entry.id)}`} aria-hidden="true">
                <span>{initials(name)}</span>
              </span>
              <span class="person-name">
                <span class="person-label">{name}</span>
                <span class="person-facts">
                  {entry.guest && <span class="badge">{t('people.guest')}</span>}
                  {entry.since > 1e11 && <span class="hint">{locale.clock(new Date(entry.since))}</span>}
                </span>
              </span>
              <span class="lobby-actions">
                <button type="button" class="button button-small button-primary" data-testid="admit" aria-label={t('people.admit.name', { name })} onClick={() => act(() => call.moderation.admit([entry.id]))}>
                  {t('people.admit')}
                </button>
                <button type="button" class="button button-small" data-testid="deny" aria-label={t('people.deny.name', { name })} onClick={() => act(() => call.moderation.deny([entry.id]))}>
                  {t('people.deny')}
                </button>
              </span>
            </li>
          );
        })}
      </ul>
    </section>
  );
}

function PersonRow({
  call,
  person,
  moderator,
  act,
  onRemove,
}: {
  readonly call: Call;
  readonly person: Person;
  readonly moderator: boolean;
  readonly act: (run: () => Promise<void>) => void;
  readonly onRemove: () => void;
}): JSX.Element {
  const t = useT();
  const [open, setOpen] = useState(false);
  const name = nameOf(person, t('say.unnamed'));
  const microphone = person.tracks.microphone;
  const hears = microphone !== undefined && !microphone.muted;
  const camera = person.tracks.camera;
  const screen = person.tracks.screen_share;
  const mayAct = moderator && !person.local;
  const menu = `menu-${person.identity}`;
  return (
    <li
      class="person"
      data-testid="person"
      data-identity={person.identity}
      data-role={person.role ?? ''}
      data-guest={person.guest}
      data-hand={person.hand !== null}
      data-mic={hears ? 'on' : 'off'}
    >
      <span class={`avatar avatar-small shade-${shade(person.identity)}${person.speaking ? ' avatar-speaking' : ''}`} aria-hidden="true">
        <span>{initials(name)}</span>
      </span>
      <span class="person-name">
        <span class="person-label">
          {name} {person.local && <span class="person-you">{t('people.you')}</span>}
        </span>
        <span class="person-facts">
          {person.guest ? <span class="badge">{t('people.guest')}</span> : person.role && <span class={person.role === 'Moderator' ? 'badge badge-strong' : 'badge'}>{t(`role.${person.role}`)}</span>}
          <QualityBars quality={person.quality} />
          <span class="visually-hidden">{t(`quality.${person.quality}`)}</span>
        </span>
      </span>
      <span class="person-states">
        {person.hand !== null && (
          <span class="person-hand" role="img" aria-label={t('tile.hand')}>
            <Icon name="hand" size={20} />
          </span>
        )}
        <span role="img" aria-label={hears ? t('prejoin.mic.on') : t('prejoin.mic.off')} class={hears ? '' : 'dim'}>
          <Icon name={hears ? 'mic' : 'micOff'} size={18} />
        </span>
        <span role="img" aria-label={camera && !camera.muted ? t('prejoin.camera.on') : t('prejoin.camera.off')} class={camera && !camera.muted ? '' : 'dim'}>
          <Icon name={camera && !camera.muted ? 'camera' : 'cameraOff'} size={18} />
        </span>
      </span>
      {mayAct && (
        <button type="button" class="icon-button" data-testid="person-menu" aria-expanded={open} aria-controls={menu} aria-label={t('people.menu', { name })} onClick={() => setOpen(!open)}>
          <Icon name="more" size={20} />
        </button>
      )}
      {mayAct && open && (
        <div id={menu} class="person-menu">
          {hears && (
            <button type="button" class="menu-item" data-testid="mute-person" onClick={() => act(() => call.moderation.mute(person.identity, microphone.sid))}>
              <Icon name="micOff" size={18} /> {t('people.mute')}
            </button>
          )}
          {camera && !camera.muted && (
            <button type="button" class="menu-item" data-testid="stop-camera" onClick={() => act(() => call.moderation.mute(person.identity, camera.sid))}>
              <Icon name="cameraOff" size={18} /> {t('people.stopCamera')}
            </button>
          )}
          {screen && !screen.muted && (
            <button type="button" class="menu-item" data-testid="stop-screen" onClick={() => act(() => call.moderation.mute(person.identity, screen.sid))}>
              <Icon name="screen" size={18} /> {t('people.stopScreen')}
            </button>
          )}
          {person.hand !== null && (
            <button type="button" class="menu-item" data-testid="lower-hand" onClick={() => act(() => call.moderation.lowerHand(person.identity))}>
              <Icon name="hand" size={18} /> {t('people.lowerHand')}
            </button>
          )}
          {person.role && (
            <div class="menu-group" role="group" aria-label={t('people.role')}>
              <span class="menu-label" aria-hidden="true">
                {t('people.role')}
              </span>
              <span class="menu-roles">
                {ROLES.filter((role) => !(person.guest && role === 'Moderator')).map((role) => (
                  <button
                    key={role}
                    type="button"
                    class="chip"
                    data-testid={`role-${role}`}
                    aria-pressed={person.role === role}
                    onClick={() => {
                      if (person.role !== role) {
                        act(() => call.moderation.setRole(person.identity, role));
                      }
                    }}
                  >
                    {t(`role.${role}`)}
                  </button>
                ))}
              </span>
            </div>
          )}
          <button type="button" class="menu-item menu-danger" data-testid="remove-person" onClick={onRemove}>
            <Icon name="close" size={18} /> {t('people.remove')}
          </button>
        </div>
      )}
    </li>
  );
}
