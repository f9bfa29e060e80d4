// SPDX-License-Identifier: EUPL-1.2
import { defineConfig } from 'vitest/config';

// Nothing is inlined into the HTML and no asset becomes a data URL: the page runs under
// `script-src 'self'; style-src 'self'`.
export default defineConfig({
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  build: {
    target: ['chrome111', 'firefox115', 'safari16.4'],
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // The engine is one chunk of 540 kB, 140 kB compressed; scripts/check-dist.mjs is the gate.
    chunkSizeWarningLimit: 600,
    reportCompressedSize: false,
    sourcemap: false,
  },
  test: { include: ['src/**/*.test.{ts,tsx}'], environment: 'node' },
});
