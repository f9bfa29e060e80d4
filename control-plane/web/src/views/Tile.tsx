// SPDX-License-Identifier: EUPL-1.2
import type { JSX } from 'preact';
import { useEffect, useRef } from 'preact/hooks';

import type { Call } from '../room';
import type { Person, Source } from '../roster';
import { type Tile, tileKey } from '../stage';
import { useT } from './context';
import { Icon } from './Icon';

/** Up to two letters for somebody without a picture. */
export function initials(name: string): string {
  const words = name.trim().split(/\s+/u).filter((word) => /[\p{L}\p{N}]/u.test(word));
  const letter = (word: string | undefined): string => /[\p{L}\p{N}]/u.exec(word ?? '')?.[0] ?? '';
  const last = words.length > 1 ? words[words.length - 1] : undefined;
  return (letter(words[0]) + letter(last)).toUpperCase();
}

/** One of eight grounds for initials, the same for one person everywhere. */
export function shade(identity: string): number {
  let sum = 0;
  for (const character of identity) {
    sum = (sum * 31 + (character.codePointAt(0) ?? 0)) >>> 0;
  }
  return sum % 8;
}

/** One picture with its name and states. */
export function TileView({ call, tile, person, large }: { readonly call: Call; readonly tile: Tile; readonly person: Person; readonly large: boolean }): JSX.Element {
  const t = useT();
  const frame = useRef<HTMLDivElement>(null);
  const screen = tile.source === 'screen_share';
  const track = person.tracks[tile.source];
  const showsVideo = track !== undefined && !track.muted && track.media > 0;
  const name = person.name === '' ? t('say.unnamed') : person.name;
  const shown = person.local ? (screen ? t('tile.screen.own') : t('tile.you')) : screen ? t('tile.screen', { name }) : name;
  const microphone = person.tracks.microphone;
  const silent = !screen && (microphone === undefined || microphone.muted);
  const pinned = call.stage.pinned === tileKey(tile);
  const states = screen ? [] : [person.speaking ? t('tile.speaking') : '', silent ? t('tile.muted') : '', showsVideo ? '' : t('tile.camera.off'), person.hand !== null ? t('tile.hand') : ''].filter((state) => state !== '');
  return (
    <div
      ref={frame}
      class={`tile${large ? ' tile-large' : ''}${screen ? ' tile-screen' : ''}${person.speaking && !screen ? ' tile-speaking' : ''}`}
      data-testid="tile"
      data-identity={person.identity}
      data-source={tile.source}
      data-local={person.local}
      data-speaking={person.speaking}
      data-muted={silent}
      role="group"
      aria-label={[shown, ...states].join(', ')}
    >
      {showsVideo ? (
        <Picture call={call} identity={person.identity} source={tile.source} media={track.media} mirrored={person.local && !screen} label={shown} />
      ) : (
        <div class={`avatar shade-${shade(person.identity)}`} aria-hidden="true">
          <span>{screen ? <Icon name="screen" size={40} /> : initials(name)}</span>
        </div>
      )}
      <div class="tile-name" aria-hidden="true">
        {silent && (
          <span class="tile-mute">
            <Icon name="micOff" size={16} />
          </span>
        )}
        {screen && <Icon name="screen" size={16} />}
        <span class="tile-label">{shown}</span>
        {person.guest && !screen && <span class="badge">{t('people.guest')}</span>}
        {!screen && <QualityBars quality={person.quality} />}
      </div>
      {person.hand !== null && !screen && (
        <div class="tile-hand" aria-hidden="true">
          <Icon name="hand" size={20} />
        </div>
      )}
      <div class="tile-tools">
        {large && screen && document.fullscreenEnabled && (
          <button type="button" class="tile-button" aria-label={t('tile.fullscreen')} title={t('tile.fullscreen')} onClick={() => void toggleFullscreen(frame.current)}>
            <Icon name="expand" size={18} />
          </button>
        )}
        <button
          type="button"
          class="tile-button"
          aria-pressed={pinned}
          aria-label={pinned ? t('tile.unpin', { name: shown }) : t('tile.pin', { name: shown })}
          title={pinned ? t('tile.unpin', { name: shown }) : t('tile.pin', { name: shown })}
          onClick={() => call.stage.togglePin(tile)}
        >
          <Icon name={pinned ? 'unpin' : 'pin'} size={18} />
        </button>
      </div>
    </div>
  );
}

async function toggleFullscreen(element: HTMLElement | null): Promise<void> {
  if (document.fullscreenElement) {
    await document.exitFullscreen();
  } else {
    await element?.requestFullscreen();
  }
}

function Picture({ call, identity, source, media, mirrored, label }: { readonly call: Call; readonly identity: string; readonly source: Source; readonly media: number; readonly mirrored: boolean; readonly label: string }): JSX.Element {
  const video = useRef<HTMLVideoElement>(null);
  useEffect(() => (video.current ? call.attach(identity, source, video.current) : undefined), [call, identity, source, media]);
  return <video ref={video} class={mirrored ? 'mirrored' : ''} data-testid="video" data-identity={identity} data-source={source} autoPlay playsInline muted aria-label={label} />;
}

/** Plays what others say; not seen. */
export function Sound({ call, person }: { readonly call: Call; readonly person: Person }): JSX.Element {
  return (
    <>
      {(['microphone', 'screen_share_audio'] as const).map((source) => {
        const track = person.tracks[source];
        return track && track.media > 0 ? <Loudspeaker key={source} call={call} identity={person.identity} source={source} media={track.media} /> : null;
      })}
    </>
  );
}

function Loudspeaker({ call, identity, source, media }: { readonly call: Call; readonly identity: string; readonly source: Source; readonly media: number }): JSX.Element {
  const audio = useRef<HTMLAudioElement>(null);
  useEffect(() => (audio.current ? call.attach(identity, source, audio.current) : undefined), [call, identity, source, media]);
  return <audio ref={audio} data-testid="audio" data-identity={identity} data-source={source} autoPlay />;
}

/** Three bars and a text for screen readers. */
export function QualityBars({ quality }: { readonly quality: Person['quality'] }): JSX.Element {
  const t = useT();
  return (
    <span class={`bars bars-${quality}`} title={t(`quality.${quality}`)}>
      <span />
      <span />
      <span />
    </span>
  );
}
