// SPDX-License-Identifier: EUPL-1.2
// The Go program of `e2e/go` through the tenant `lab`: the public server SDK, every packet accounted for.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import path from 'node:path';

import { TARGET } from '../lib/paths.mjs';
import { series } from '../lib/scenario.mjs';
import { HOST } from '../lib/system.mjs';

const sdk = series('sdk');

sdk.test('server-sdk-go: 2 publishers and 20 subscribers, the RoomService, wrong keys', async () => {
  const program = path.join(TARGET, 'lab.test');
  assert.ok(existsSync(program), `${program} is missing: "make test" builds it by go test -c`);
  const child = spawn(program, ['-test.v', '-test.timeout=240s'], { stdio: ['ignore', 'inherit', 'inherit'], env: { ...process.env, PLENUM_URL: `ws://${HOST}` } });
  const [code] = await once(child, 'exit');
  assert.equal(code, 0, 'the Go program found something wrong');
}, { seconds: 300 });
