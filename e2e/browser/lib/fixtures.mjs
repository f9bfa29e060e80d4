// SPDX-License-Identifier: EUPL-1.2
// Films and tones of the people, made by ffmpeg under target/: nothing of it is committed.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, renameSync, statSync } from 'node:fs';
import path from 'node:path';

import { CODE_ROWS, COLUMNS, ROWS, encodeBits } from './frame-code.mjs';
import { FRAMES, FRAME_RATE } from './people.mjs';
import { TARGET } from './paths.mjs';

const FOLDER = path.join(TARGET, 'fixtures');

async function ffmpeg(args, feed) {
  const child = spawn('ffmpeg', ['-hide_banner', '-loglevel', 'error', '-y', ...args], {
    stdio: ['pipe', 'inherit', 'inherit'],
  });
  const ended = once(child, 'exit');
  child.stdin.on('error', () => {});
  if (feed) for (const chunk of feed()) if (!child.stdin.write(chunk)) await once(child.stdin, 'drain');
  child.stdin.end();
  const [code] = await ended;
  if (code !== 0) throw new Error(`ffmpeg ended with ${code}: ${args.join(' ')}`);
}

// One pixel a block; ffmpeg enlarges without smoothing.
function* smallFrames(person) {
  for (let counter = 0; counter < FRAMES; counter += 1) {
    const frame = Buffer.alloc(COLUMNS * ROWS * 3);
    const bits = encodeBits(person.id, counter);
    for (let block = 0; block < COLUMNS * ROWS; block += 1) {
      const row = Math.floor(block / COLUMNS);
      // Below the code a bar moves, so that an encoder has something to do.
      const bar = block % COLUMNS === counter % COLUMNS && row % 3 === 2 ? 60 : 0;
      const rgb = row < CODE_ROWS ? Array(3).fill(bits[block] ? 235 : 16) : person.colour.map((c) => c + bar);
      frame.set(rgb, block * 3);
    }
    yield frame;
  }
}

/** A y4m film of the person with the burnt-in code. */
export async function film(person, { width = 640, height = 360 } = {}) {
  mkdirSync(FOLDER, { recursive: true });
  const file = path.join(FOLDER, `${person.name.toLowerCase()}-${width}x${height}.y4m`);
  if (existsSync(file)) return file;
  const size = `${COLUMNS}x${ROWS}`;
  await ffmpeg(
    ['-f', 'rawvideo', '-pix_fmt', 'rgb24', '-s', size, '-r', String(FRAME_RATE), '-i', '-',
      '-vf', `scale=${width}:${height}:flags=neighbor`, '-pix_fmt', 'yuv420p', '-f', 'yuv4mpegpipe', `${file}.part`],
    () => smallFrames(person),
  );
  if (statSync(`${file}.part`).size < width * height * 1.5 * FRAMES) throw new Error(`${file}: frames are missing`);
  renameSync(`${file}.part`, file);
  return file;
}

/** A wav of the person's tone, in beeps: a steady one is what a noise suppressor takes out. */
export async function tone(person) {
  mkdirSync(FOLDER, { recursive: true });
  const file = path.join(FOLDER, `${person.name.toLowerCase()}.wav`);
  if (existsSync(file)) return file;
  const source = `aevalsrc=exprs='0.5*sin(2*PI*${person.tone}*t)*lt(mod(t\\,0.4)\\,0.25)':s=48000:d=8`;
  await ffmpeg(['-f', 'lavfi', '-i', source, '-ac', '1', '-c:a', 'pcm_s16le', '-f', 'wav', `${file}.part`]);
  renameSync(`${file}.part`, file);
  return file;
}
