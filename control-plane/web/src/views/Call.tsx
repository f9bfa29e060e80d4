// SPDX-License-Identifier: EUPL-1.2
import type { JSX } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';

import { failureOf } from '../devices';
import type { Conference } from '../door';
import type { Call } from '../room';
import { tileKey } from '../stage';
import { keepAwake } from '../wake';
import { useAnnouncements } from './announce';
import { Bar, type Panel } from './Bar';
import { Chat } from './Chat';
import { useApp, useChange, useT } from './context';
import { Dialog } from './Dialog';
import { Icon, Mark } from './Icon';
import { People } from './People';
import { Settings } from './Settings';
import { useArrival } from './Shell';
import { Sound, TileView } from './Tile';

/** The conference itself. */
export function CallView({ call, conference }: { readonly call: Call; readonly conference: Conference }): JSX.Element {
  const t = useT();
  const { locale } = useApp();
  useChange(call);
  const [panel, setPanel] = useState<Panel | null>(null);
  const [settings, setSettings] = useState(false);
  const [leaving, setLeaving] = useState<'no' | 'ask' | 'end'>('no');
  const { toasts, spoken, say } = useAnnouncements(call);
  const { own } = call;
  const act = (run: () => Promise<void>): void => {
    run().catch(() => say(t('call.failed.moderation')));
  };

  const heading = useArrival(conference.displayName);
  useEffect(() => keepAwake(), []);
  useEffect(
    () =>
      call.on('failed', (what, error) => {
        const why = what === 'microphone' || what === 'camera' ? t(`device.${failureOf(error)}`) : '';
        say(t(`call.failed.${what}`, { why }));
      }),
    [call, t],
  );

  return (
    <div class={panel ? 'call call-with-panel' : 'call'} data-testid="screen" data-screen="call">
      <a class="skip" href="#bar">
        {t('app.skip')}
      </a>
      <header class="call-head">
        <Mark size={24} />
        <h1 ref={heading} tabIndex={-1} class="call-title">
          <span class="call-name">{conference.displayName}</span>
          {conference.tenant.name !== '' && <span class="call-tenant">{conference.tenant.name}</span>}
        </h1>
        <LayoutButton call={call} />
        <button type="button" class="icon-button" data-testid="settings" aria-label={t('call.settings')} title={t('call.settings')} onClick={() => setSettings(true)}>
          <Icon name="settings" />
        </button>
      </header>

      <div class="call-notes">
        <div role="status">
          {own.reconnecting && (
            <p class="note note-warn" data-testid="reconnecting">
              <span class="spinner spinner-small" aria-hidden="true" />
              {t('call.reconnecting')}
            </p>
          )}
          {call.move.movesAt !== null && !own.reconnecting && (
            <p class="note" data-testid="moves">
              {t('call.moves', { when: locale.moment(new Date(call.move.movesAt), new Date()) })}
            </p>
          )}
          {call.move.movesAt === null && call.move.maintenanceAt !== null && !own.reconnecting && (
            <p class="note" data-testid="maintenance">
              {t('call.maintenance', { when: locale.moment(new Date(call.move.maintenanceAt), new Date()) })}
            </p>
          )}
        </div>
        {own.audioBlocked && !own.reconnecting && (
          <div class="note" role="alert">
            <Icon name="sound" size={20} />
            {t('call.startAudio')}
            <button type="button" class="button button-small button-primary" data-testid="start-audio" onClick={() => void call.startAudio()}>
              {t('call.startAudio.button')}
            </button>
          </div>
        )}
      </div>

      <main class="call-main" aria-label={t('call.stage')}>
        <StageView call={call} />
        {panel && (
          <SidePanel panel={panel} onClose={() => setPanel(null)}>
            {panel === 'people' ? <People call={call} act={act} /> : <Chat call={call} />}
          </SidePanel>
        )}
      </main>

      <Bar call={call} panel={panel} setPanel={setPanel} onLeave={() => setLeaving('ask')} />

      {call.roster.people
        .filter((person) => !person.local)
        .map((person) => (
          <Sound key={person.identity} call={call} person={person} />
        ))}

      <div class="toasts" aria-hidden="true">
        {toasts.map((toast) => (
          <p key={toast.id} class="toast" data-testid="toast">
            {toast.text}
          </p>
        ))}
      </div>
      <div class="visually-hidden" role="log" aria-live="polite" aria-relevant="additions">
        {spoken.map((line) => (
          <p key={line.id}>{line.text}</p>
        ))}
      </div>

      {settings && <Settings call={call} onClose={() => setSettings(false)} />}
      {leaving === 'ask' && <LeaveDialog call={call} onClose={() => setLeaving('no')} onEnd={() => setLeaving('end')} />}
      {leaving === 'end' && <EndDialog call={call} act={act} onClose={() => setLeaving('no')} />}
    </div>
  );
}

function LayoutButton({ call }: { readonly call: Call }): JSX.Element {
  const t = useT();
  useChange(call.stage);
  const { mode } = call.stage;
  const label = mode === 'grid' ? t('call.layout.speaker') : t('call.layout.grid');
  return (
    <button type="button" class="icon-button" data-testid="layout" data-mode={mode} aria-label={label} title={label} onClick={() => call.stage.setMode(mode === 'grid' ? 'speaker' : 'grid')}>
      <Icon name={mode === 'grid' ? 'speaker' : 'grid'} />
    </button>
  );
}

function SidePanel({ panel, onClose, children }: { readonly panel: Panel; readonly onClose: () => void; readonly children: JSX.Element }): JSX.Element {
  const t = useT();
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    heading.current?.focus({ preventScroll: true });
  }, [panel]);
  const close = (): void => {
    onClose();
    document.getElementById(`bar-${panel}`)?.focus();
  };
  return (
    <section
      id="panel"
      class="panel"
      aria-labelledby="panel-title"
      onKeyDown={(event) => {
        // A dialog in the panel has its own Escape.
        if (event.key === 'Escape' && !(event.target instanceof Element && event.target.closest('dialog'))) {
          close();
        }
      }}
    >
      <div class="panel-head">
        <h2 id="panel-title" ref={heading} tabIndex={-1}>
          {panel === 'people' ? t('people.title') : t('chat.title')}
        </h2>
        <button type="button" class="icon-button" data-testid="panel-close" aria-label={t('app.close')} onClick={close}>
          <Icon name="close" />
        </button>
      </div>
      {children}
    </section>
  );
}

function StageView({ call }: { readonly call: Call }): JSX.Element {
  const t = useT();
  const area = useRef<HTMLDivElement>(null);
  const grid = useRef<HTMLDivElement>(null);
  useChange(call.stage);
  useChange(call.roster);
  useEffect(() => {
    const element = area.current;
    if (!element) {
      return undefined;
    }
    const observer = new ResizeObserver(() => {
      call.stage.handleSize({ width: element.clientWidth, height: element.clientHeight });
    });
    observer.observe(element);
    return () => observer.disconnect();
  }, [call]);
  const layout = call.stage.layout();
  useEffect(() => {
    grid.current?.style.setProperty('--columns', String(layout.columns));
    grid.current?.style.setProperty('--rows', String(layout.rows));
  }, [layout.columns, layout.rows, layout.focus]);
  const focusPerson = layout.focus ? call.roster.find(layout.focus.identity) : null;
  const alone = call.roster.people.length === 1;
  return (
    <div class={layout.focus ? 'stage stage-focus' : 'stage'}>
      <div ref={area} class="stage-area">
        {layout.focus && focusPerson && <TileView key={`large/${tileKey(layout.focus)}`} call={call} tile={layout.focus} person={focusPerson} large />}
        {!layout.focus && (
          <div ref={grid} class="stage-grid">
            {layout.tiles.map((tile) => {
              const person = call.roster.find(tile.identity);
              return person ? <TileView key={tileKey(tile)} call={call} tile={tile} person={person} large={false} /> : null;
            })}
          </div>
        )}
      </div>
      {layout.focus && layout.tiles.length > 0 && (
        <div class="strip" tabIndex={0} role="group" aria-label={t('call.stage')}>
          {layout.tiles.map((tile) => {
            const person = call.roster.find(tile.identity);
            return person ? <TileView key={tileKey(tile)} call={call} tile={tile} person={person} large={false} /> : null;
          })}
        </div>
      )}
      {alone && <p class="stage-alone">{t('call.alone')}</p>}
      {layout.pages > 1 && (
        <div class="pages">
          <button type="button" class="icon-button" aria-label={t('call.page.previous')} disabled={layout.page === 0} onClick={() => call.stage.setPage(layout.page - 1)}>
            <Icon name="previous" />
          </button>
          <span role="status">{t('call.page', { page: layout.page + 1, pages: layout.pages })}</span>
          <button type="button" class="icon-button" aria-label={t('call.page.next')} disabled={layout.page === layout.pages - 1} onClick={() => call.stage.setPage(layout.page + 1)}>
            <Icon name="next" />
          </button>
        </div>
      )}
    </div>
  );
}

function LeaveDialog({ call, onClose, onEnd }: { readonly call: Call; readonly onClose: () => void; readonly onEnd: () => void }): JSX.Element {
  const { session } = useApp();
  const t = useT();
  const { moderator } = call.own;
  return (
    <Dialog title={t('leave.title')} onClose={onClose}>
      <p>{moderator ? t('leave.moderator') : t('leave.text')}</p>
      <div class="actions actions-end">
        <button type="button" class="button" onClick={onClose}>
          {t('app.cancel')}
        </button>
        {moderator && (
          <button type="button" class="button button-danger-quiet" data-testid="end-for-all" onClick={onEnd}>
            {t('leave.end')}
          </button>
        )}
        <button type="button" class="button button-danger" data-testid="leave-now" autoFocus onClick={() => void session.leave()}>
          {t('leave.now')}
        </button>
      </div>
    </Dialog>
  );
}

function EndDialog({ call, act, onClose }: { readonly call: Call; readonly act: (run: () => Promise<void>) => void; readonly onClose: () => void }): JSX.Element {
  const t = useT();
  return (
    <Dialog title={t('leave.end.title')} onClose={onClose}>
      <p>{t('leave.end.text', { count: call.roster.people.length })}</p>
      <div class="actions actions-end">
        <button type="button" class="button" onClick={onClose}>
          {t('app.cancel')}
        </button>
        <button
          type="button"
          class="button button-danger"
          data-testid="end-confirm"
          onClick={() => {
            act(() => call.moderation.end());
            onClose();
          }}
        >
          {t('leave.end.confirm')}
        </button>
      </div>
    </Dialog>
  );
}
