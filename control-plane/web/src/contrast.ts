// SPDX-License-Identifier: EUPL-1.2

/** A colour as three numbers 0–255. */
export type Rgb = readonly [number, number, number];

/** `#rrggbb` to numbers; null for anything else. */
export function parseColour(text: string): Rgb | null {
  const match = /^#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})$/i.exec(text);
  if (!match) {
    return null;
  }
  return [Number.parseInt(match[1] ?? '', 16), Number.parseInt(match[2] ?? '', 16), Number.parseInt(match[3] ?? '', 16)];
}

/** Numbers to `#rrggbb`. */
export function formatColour(colour: Rgb): string {
  return `#${colour.map((part) => Math.round(part).toString(16).padStart(2, '0')).join('')}`;
}

/** Relative luminance of WCAG 2.1. */
export function luminance(colour: Rgb): number {
  const [r, g, b] = colour.map((part) => {
    const value = part / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** Contrast of WCAG 2.1, 1–21. */
export function contrast(a: Rgb, b: Rgb): number {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y) as [number, number];
  return (high + 0.05) / (low + 0.05);
}

const BLACK: Rgb = [0, 0, 0];
const WHITE: Rgb = [255, 255, 255];

/** Black or white, whichever reads better on this colour. One of them always reaches 4.5:1. */
export function readableOn(colour: Rgb): Rgb {
  return contrast(colour, WHITE) >= contrast(colour, BLACK) ? WHITE : BLACK;
}

/** This colour, moved towards black or white until it reaches the wanted contrast on the background. */
export function readableFor(colour: Rgb, background: Rgb, wanted: number): Rgb {
  const target = readableOn(background);
  for (let step = 0; step <= 20; step += 1) {
    const share = step / 20;
    const mixed = colour.map((part, index) => Math.round(part + ((target[index] ?? 0) - part) * share)) as unknown as Rgb;
    if (contrast(mixed, background) >= wanted) {
      return mixed;
    }
  }
  return target;
}

/** The page's own colour for tenants without one. */
export const DEFAULT_COLOUR: Rgb = [0x1f, 0x4e, 0x8c];

/** Custom properties that carry a tenant's colour into the style sheet; each pair of text and ground is readable. */
export function brandProperties(colour: string | null | undefined): Record<string, string> {
  const brand = parseColour(colour ?? '') ?? DEFAULT_COLOUR;
  return {
    '--brand': formatColour(brand),
    '--on-brand': formatColour(readableOn(brand)),
    '--brand-text-light': formatColour(readableFor(brand, [0xff, 0xff, 0xff], 5.5)),
    '--brand-text-dark': formatColour(readableFor(brand, [0x1b, 0x22, 0x2c], 5.5)),
  };
}
