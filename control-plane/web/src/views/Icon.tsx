// SPDX-License-Identifier: EUPL-1.2
import type { JSX } from 'preact';

/** Drawn by hand on a grid of 24, stroked in the colour of the text. */
const PATHS = {
  mic: ['M12 3a3 3 0 0 1 3 3v5a3 3 0 0 1-6 0V6a3 3 0 0 1 3-3z', 'M5.5 11a6.5 6.5 0 0 0 13 0', 'M12 17.5V21'],
  micOff: ['M15 10.5V6a3 3 0 0 0-5.8-1', 'M9 9v2a3 3 0 0 0 4.6 2.5', 'M5.5 11a6.5 6.5 0 0 0 10.4 5.2', 'M18.2 13a6.5 6.5 0 0 0 .3-2', 'M12 17.5V21', 'M4 4l16 16'],
  camera: ['M4.5 6.5h9a1.5 1.5 0 0 1 1.5 1.5v8a1.5 1.5 0 0 1-1.5 1.5h-9A1.5 1.5 0 0 1 3 16V8a1.5 1.5 0 0 1 1.5-1.5z', 'M15 11l6-3.5v9L15 13'],
  cameraOff: ['M9 6.5h4.5A1.5 1.5 0 0 1 15 8v4.5', 'M14.6 17.2a1.5 1.5 0 0 1-1.1.3h-9A1.5 1.5 0 0 1 3 16V8a1.5 1.5 0 0 1 1.5-1.5h.4', 'M15 11l6-3.5v9l-3-1.8', 'M3.5 3.5l17 17'],
  screen: ['M4 5h16a1 1 0 0 1 1 1v10a1 1 0 0 1-1 1H4a1 1 0 0 1-1-1V6a1 1 0 0 1 1-1z', 'M8.5 20.5h7', 'M12 14V8.5', 'M9.2 11L12 8.2l2.8 2.8'],
  hand: ['M7 12.5V6.2a1.4 1.4 0 0 1 2.8 0V11', 'M9.8 11V4.4a1.4 1.4 0 0 1 2.8 0V11', 'M12.6 11V5.4a1.4 1.4 0 0 1 2.8 0V12', 'M15.4 12V8.2a1.4 1.4 0 0 1 2.8 0V15a6 6 0 0 1-6 6h-.7a6 6 0 0 1-5-2.7l-2.8-4.4a1.4 1.4 0 0 1 2.2-1.7L7 13.5'],
  people: ['M9 11a3.2 3.2 0 1 0 0-6.4A3.2 3.2 0 0 0 9 11z', 'M2.8 19.5c0-3.2 2.8-5.2 6.2-5.2s6.2 2 6.2 5.2', 'M15.6 5a3.2 3.2 0 0 1 0 5.8', 'M17.6 14.6c2.2.7 3.6 2.4 3.6 4.9'],
  chat: ['M5 4.5h14A1.5 1.5 0 0 1 20.5 6v9a1.5 1.5 0 0 1-1.5 1.500h-7L7 20.500v-4H5A1.5 1.5 0 0 1 3.5 15V6A1.5 1.5 0 0 1 5 4.500z', 'M8 9h8', 'M8 12.500h5'],
  grid: ['M4 4h7v7H4z', 'M13 4h7v7h-7z', 'M4 13h7v7H4z', 'M13 13h7v7h-7z'],
  speaker: ['M4 4h16v10.500H4z', 'M4 17.500h4v2.500H4z', 'M10 17.500h4v2.500h-4z', 'M16 17.500h4v2.500h-4z'],
  settings: ['M4 7h9', 'M17 7h3', 'M15 4.8v4.4', 'M4 12h3', 'M11 12h9', 'M9 9.8v4.4', 'M4 17h7', 'M15 17h5', 'M13 14.8v4.4'],
  leave: ['M13.5 4H6a1 1 0 0 0-1 1v14a1 1 0 0 0 1 1h7.5', 'M10.5 12H21', 'M17.5 8.500L21 12l-3.5 3.5'],
  more: ['M5 11.4v1.2', 'M12 11.4v1.2', 'M19 11.4v1.2'],
  pin: ['M4 9V4h5', 'M20 9V4h-5', 'M4 15v5h5', 'M20 15v5h-5'],
  unpin: ['M9 4v5H4', 'M15 4v5h5', 'M9 20v-5H4', 'M15 20v-5h5'],
  check: ['M5 12.500l4.5 4.500L19 7.5'],
  close: ['M6 6l12 12', 'M18 6L6 18'],
  lock: ['M6.5 11h11v9h-11z', 'M8.5 11V7.500a3.5 3.5 0 0 1 7 0V11'],
  warn: ['M12 4l9 16H3z', 'M12 10v4.5', 'M12 17.300v.01'],
  info: ['M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z', 'M12 11v5.5', 'M12 7.700v.01'],
  clock: ['M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z', 'M12 7v5.200l3.5 2'],
  door: ['M6 21V4.500L15 3v18', 'M15 5h3v16', 'M3.5 21h17', 'M12 12v.01'],
  globe: ['M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z', 'M3 12h18', 'M12 3c3 3 3 15 0 18', 'M12 3c-3 3-3 15 0 18'],
  send: ['M4 12l16-8-5 16-3.5-6.500z', 'M20 4l-8.5 9.5'],
  next: ['M9 5l7 7-7 7'],
  previous: ['M15 5l-7 7 7 7'],
  sound: ['M4 9.500v5h3.500L12 19V5L7.5 9.500z', 'M15.5 9a4.2 4.2 0 0 1 0 6', 'M18 6.500a8 8 0 0 1 0 11'],
  shield: ['M12 3l7.5 3v5.500c0 4.5-3 8-7.5 9.5-4.5-1.5-7.5-5-7.5-9.500V6z', 'M8.8 12l2.3 2.3 4.2-4.5'],
  eye: ['M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12z', 'M12 14.800a2.8 2.8 0 1 0 0-5.6 2.8 2.8 0 0 0 0 5.600z'],
  home: ['M4 11l8-7 8 7v9h-5.500v-6h-5v6H4z'],
  expand: ['M4 9V4h5', 'M20 9V4h-5', 'M4 15v5h5', 'M20 15v5h-5'],
} as const;

/** Name of a drawing. */
export type IconName = keyof typeof PATHS;

/** A drawing beside a text; screen readers skip it. */
export function Icon({ name, size = 22 }: { readonly name: IconName; readonly size?: number }): JSX.Element {
  return (
    <svg class="icon" viewBox="0 0 24 24" width={size} height={size} aria-hidden="true" focusable="false">
      {PATHS[name].map((path) => (
        <path key={path} d={path} />
      ))}
    </svg>
  );
}

/** The sign of the house: people around a table. */
export function Mark({ size = 28 }: { readonly size?: number }): JSX.Element {
  return (
    <svg viewBox="0 0 32 32" width={size} height={size} aria-hidden="true" focusable="false" class="mark">
      <rect width="32" height="32" rx="8" class="mark-ground" />
      <g class="mark-people">
        <circle cx="16" cy="8.5" r="3" />
        <circle cx="8.5" cy="14" r="3" />
        <circle cx="23.5" cy="14" r="3" />
        <circle cx="11.5" cy="22.5" r="3" />
        <circle cx="20.5" cy="22.5" r="3" />
      </g>
    </svg>
  );
}
