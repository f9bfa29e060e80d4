// SPDX-License-Identifier: EUPL-1.2

/** Keeps the screen of a phone on during a call; the returned function stops. Browsers release the lock whenever the page is hidden. */
export function keepAwake(): () => void {
  let lock: WakeLockSentinel | null = null;
  let wanted = true;
  const take = async (): Promise<void> => {
    if (document.visibilityState !== 'visible' || !('wakeLock' in navigator)) {
      return;
    }
    try {
      const taken = await navigator.wakeLock.request('screen');
      if (wanted) {
        lock = taken;
      } else {
        await taken.release();
      }
    } catch {
      // A low battery or a policy says no; the call goes on.
    }
  };
  const again = (): void => void take();
  document.addEventListener('visibilitychange', again);
  again();
  return () => {
    wanted = false;
    document.removeEventListener('visibilitychange', again);
    void lock?.release().catch(() => undefined);
  };
}
