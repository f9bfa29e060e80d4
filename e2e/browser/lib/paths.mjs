// SPDX-License-Identifier: EUPL-1.2
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const REPOSITORY = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');
const CARGO_TARGET = process.env.CARGO_TARGET_DIR ?? path.join(REPOSITORY, 'target');
/** Everything that a run leaves behind: fixtures, logs, pictures of failures. */
export const TARGET = process.env.E2E_TARGET ?? path.join(CARGO_TARGET, 'e2e');
/** Where the binaries under test lie. */
export const BINARIES = process.env.E2E_BINARIES ?? path.join(CARGO_TARGET, 'debug');
