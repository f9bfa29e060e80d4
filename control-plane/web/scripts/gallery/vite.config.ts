// SPDX-License-Identifier: EUPL-1.2
import { defineConfig } from 'vite';

export default defineConfig({
  root: new URL('../../', import.meta.url).pathname,
  base: '/gallery/',
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  logLevel: 'warn',
  build: {
    outDir: '.cache/gallery',
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: { input: new URL('./index.html', import.meta.url).pathname },
  },
});
