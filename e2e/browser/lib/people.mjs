// SPDX-License-Identifier: EUPL-1.2
// The people of the tests: a number for the frame code, a tone, a colour. Names are characters, not persons.

export const FRAME_RATE = 15;
/** Frames until a person's film begins again: 16 s, so a gap up to that long is told by its counter. */
export const FRAMES = 240;

export const PEOPLE = {
  ada: { id: 1, name: 'Ada', tone: 500, colour: [38, 70, 120] },
  ben: { id: 2, name: 'Ben', tone: 800, colour: [120, 60, 40] },
  cleo: { id: 3, name: 'Cleo', tone: 1100, colour: [40, 110, 70] },
  dora: { id: 4, name: 'Dora', tone: 1400, colour: [110, 50, 110] },
  fox: { id: 5, name: 'Fox', tone: 1700, colour: [130, 110, 30] },
};
