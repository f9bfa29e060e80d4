// SPDX-License-Identifier: EUPL-1.2
import { describe, expect, it } from 'vitest';

import { brandProperties, contrast, formatColour, parseColour, readableFor, readableOn, type Rgb } from './contrast';

/** Every 17th step of each channel: 4,096 colours. */
function* colours(): Generator<Rgb> {
  for (let r = 0; r < 256; r += 17) {
    for (let g = 0; g < 256; g += 17) {
      for (let b = 0; b < 256; b += 17) {
        yield [r, g, b];
      }
    }
  }
}

describe('contrast', () => {
  it('agrees with the published extremes', () => {
    expect(contrast([0, 0, 0], [255, 255, 255])).toBeCloseTo(21, 5);
    expect(contrast([119, 119, 119], [255, 255, 255])).toBeCloseTo(4.48, 2);
  });

  it('finds a text colour of at least 4.5:1 for every brand colour', () => {
    for (const colour of colours()) {
      expect(contrast(readableOn(colour), colour), formatColour(colour)).toBeGreaterThanOrEqual(4.5);
    }
  });

  it('moves every brand colour to at least 5.5:1 on both grounds of the page', () => {
    for (const colour of colours()) {
      for (const ground of [[255, 255, 255], [27, 34, 44]] as const) {
        expect(contrast(readableFor(colour, ground, 5.5), ground), formatColour(colour)).toBeGreaterThanOrEqual(5.5);
      }
    }
  });

  it('leaves a colour that is readable already as it is', () => {
    expect(readableFor([31, 78, 140], [255, 255, 255], 5.5)).toEqual([31, 78, 140]);
  });

  it('takes the own colour when a tenant has none or a wrong one', () => {
    for (const wrong of [null, undefined, '', 'red', '#12345', '#1234567', 'url(//evil)']) {
      expect(brandProperties(wrong)['--brand']).toBe('#1f4e8c');
    }
    expect(parseColour('#FFd400')).toEqual([255, 212, 0]);
    expect(brandProperties('#ffd400')['--on-brand']).toBe('#000000');
  });
});
