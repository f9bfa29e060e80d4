// SPDX-License-Identifier: EUPL-1.2
// Drawn people for the pictures of the documentation: nobody's face, and nothing to decode.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import path from 'node:path';

import { TARGET } from './paths.mjs';

const WIDTH = 1280;
const HEIGHT = 720;
const COUNT = 30;
// Drawn at half the size; ffmpeg enlarges.
const SCALE = 2;
const RATE = 15;

const LOOKS = {
  ada: { wall: [[226, 232, 240], [148, 163, 184]], skin: [224, 172, 138], hair: [62, 39, 35], shirt: [30, 64, 110], long: true },
  ben: { wall: [[254, 243, 224], [217, 180, 130]], skin: [141, 85, 54], hair: [24, 20, 20], shirt: [46, 125, 90], long: false },
  cleo: { wall: [[223, 240, 232], [120, 160, 140]], skin: [240, 200, 170], hair: [176, 106, 44], shirt: [140, 52, 70], long: true },
  dora: { wall: [[236, 228, 244], [140, 120, 170]], skin: [198, 140, 100], hair: [190, 190, 196], shirt: [70, 72, 84], long: false },
};

function* frames(look) {
  for (let at = 0; at < COUNT; at += 1) {
    const frame = Buffer.alloc((WIDTH * HEIGHT * 3) / SCALE ** 2);
    const sway = Math.sin((at / COUNT) * 2 * Math.PI);
    const cx = WIDTH / 2 + sway * 8;
    const cy = 300 + sway * 3;
    const inside = (x, y, mx, my, rx, ry) => ((x - mx) / rx) ** 2 + ((y - my) / ry) ** 2 < 1;
    for (let y = 0; y < HEIGHT; y += SCALE) {
      for (let x = 0; x < WIDTH; x += SCALE) {
        const blend = (x / WIDTH) * 0.6 + (y / HEIGHT) * 0.4;
        let colour = look.wall[0].map((from, channel) => from + (look.wall[1][channel] - from) * blend);
        // A window behind.
        if (x > 120 && x < 380 && y > 60 && y < 330 && Math.abs(x - 250) > 6 && Math.abs(y - 195) > 6) colour = colour.map((c) => c + (255 - c) * 0.55);
        if (look.long && inside(x, y, cx, cy + 60, 150, 230) && y < 560) colour = look.hair;
        if (inside(x, y, cx, 760, 330, 260)) colour = look.shirt;
        if (Math.abs(x - cx) < 48 && y > cy + 80 && y < cy + 230) colour = look.skin.map((c) => c * 0.86);
        if (inside(x, y, cx, cy - 18, 128, 158)) colour = look.hair;
        if (inside(x, y, cx, cy + 18, 108, 140)) colour = look.skin;
        if (inside(x, y, cx, cy - 96, 116, 58)) colour = look.hair;
        if (inside(x, y, cx - 42, cy + 6, 10, 12) || inside(x, y, cx + 42, cy + 6, 10, 12)) colour = [40, 32, 30];
        if (inside(x, y, cx, cy + 78, 40, 18) && y > cy + 76) colour = [150, 60, 60];
        frame.set(colour.map((c) => Math.max(0, Math.min(255, c))), (((y / SCALE) * WIDTH) / SCALE + x / SCALE) * 3);
      }
    }
    yield frame;
  }
}

/** A y4m film of a drawn person. */
export async function portrait(name) {
  const folder = path.join(TARGET, 'fixtures');
  mkdirSync(folder, { recursive: true });
  const file = path.join(folder, `portrait-${name}.y4m`);
  if (existsSync(file)) return file;
  const child = spawn('ffmpeg', ['-hide_banner', '-loglevel', 'error', '-y', '-f', 'rawvideo', '-pix_fmt', 'rgb24', '-s', `${WIDTH / SCALE}x${HEIGHT / SCALE}`, '-r', String(RATE), '-i', '-',
    '-vf', `scale=${WIDTH}:${HEIGHT}:flags=bicubic`, '-pix_fmt', 'yuv420p', '-f', 'yuv4mpegpipe', `${file}.part`], { stdio: ['pipe', 'inherit', 'inherit'] });
  const ended = once(child, 'exit');
  for (const frame of frames(LOOKS[name])) if (!child.stdin.write(frame)) await once(child.stdin, 'drain');
  child.stdin.end();
  const [code] = await ended;
  if (code !== 0) throw new Error(`ffmpeg ended with ${code}`);
  renameSync(`${file}.part`, file);
  return file;
}
