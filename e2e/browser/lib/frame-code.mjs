// SPDX-License-Identifier: EUPL-1.2
// The code burnt into every test frame: who is filmed and which frame it is.
//
// A frame is a grid of 16 × 9 blocks; its two top rows carry 32 bits, one a block, white is 1:
// 4 bits 1011, person (4), counter (12), CRC-8 of person and counter (8), 4 bits 0100.
// A block is 40 pixels wide at 640×360 and still 10 at 160×90, so the code survives every simulcast layer.
// `decodeStrip` is also sent into pages as source text: it must not refer to anything outside itself.

export const COLUMNS = 16;
export const ROWS = 9;
export const CODE_ROWS = 2;

function crc8(value16) {
  let crc = 0;
  for (let bit = 15; bit >= 0; bit -= 1) {
    const feed = ((crc >> 7) & 1) ^ ((value16 >> bit) & 1);
    crc = (crc << 1) & 0xff;
    if (feed) crc ^= 0x07;
  }
  return crc;
}

/** The 32 bits of a frame, first the top row from left to right. */
export function encodeBits(person, counter) {
  const value = ((person & 0xf) << 12) | (counter & 0xfff);
  const word = [
    [0b1011, 4],
    [value, 16],
    [crc8(value), 8],
    [0b0100, 4],
  ];
  const bits = [];
  for (const [number, width] of word) {
    for (let bit = width - 1; bit >= 0; bit -= 1) bits.push((number >> bit) & 1);
  }
  return bits;
}

/**
 * Reads the code out of the RGBA pixels of the two top rows.
 * Returns `{ person, counter }`, or null where the frame is not one of ours or is damaged.
 */
export function decodeStrip(pixels, width, height) {
  const columns = 16;
  const rows = 2;
  const levels = [];
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const left = ((column + 0.3) * width) / columns;
      const right = ((column + 0.7) * width) / columns;
      const top = ((row + 0.3) * height) / rows;
      const bottom = ((row + 0.7) * height) / rows;
      let sum = 0;
      let count = 0;
      for (let y = Math.floor(top); y < bottom; y += 1) {
        for (let x = Math.floor(left); x < right; x += 1) {
          const at = (y * width + x) * 4;
          sum += pixels[at] + pixels[at + 1] + pixels[at + 2];
          count += 3;
        }
      }
      levels.push(sum / count);
    }
  }
  const white = (levels[0] + levels[2] + levels[3] + levels[29]) / 4;
  const black = (levels[1] + levels[28] + levels[30] + levels[31]) / 4;
  if (white - black < 60) return null;
  const threshold = (white + black) / 2;
  const bits = levels.map((level) => (level > threshold ? 1 : 0));
  const number = (from, length) => bits.slice(from, from + length).reduce((value, bit) => (value << 1) | bit, 0);
  if (number(0, 4) !== 0b1011 || number(28, 4) !== 0b0100) return null;
  const value = number(4, 16);
  let crc = 0;
  for (let bit = 15; bit >= 0; bit -= 1) {
    const feed = ((crc >> 7) & 1) ^ ((value >> bit) & 1);
    crc = (crc << 1) & 0xff;
    if (feed) crc ^= 0x07;
  }
  if (crc !== number(20, 8)) return null;
  return { person: value >> 12, counter: value & 0xfff };
}
