// SPDX-License-Identifier: EUPL-1.2

/** The two calls that the page makes. */
export type Memory = Pick<Storage, 'getItem' | 'setItem'>;

/** A browser's storage, or plain memory where the browser refuses it (private windows, full disks, policies). */
export function safeStorage(open: () => Memory): Memory {
  const fallback = new Map<string, string>();
  let storage: Memory | null = null;
  try {
    storage = open();
  } catch {
    storage = null;
  }
  return {
    getItem: (key) => {
      try {
        return fallback.get(key) ?? storage?.getItem(key) ?? null;
      } catch {
        return fallback.get(key) ?? null;
      }
    },
    setItem: (key, value) => {
      try {
        if (storage) {
          storage.setItem(key, value);
          return;
        }
      } catch {
        // Kept below.
      }
      fallback.set(key, value);
    },
  };
}
