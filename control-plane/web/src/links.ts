// SPDX-License-Identifier: EUPL-1.2

/** What stands in a link to a conference. */
export interface Link {
  readonly roomId: string;
  readonly password: string | null;
  readonly openerKey: string | null;
}

const ROOM_PATH = /^\/c\/([A-Za-z0-9_-]{1,64})\/?$/;
const SECRET_LIMIT = 512;

/** The room of a path, or null. */
export function roomOf(path: string): string | null {
  return ROOM_PATH.exec(path)?.[1] ?? null;
}

/** Secrets of a fragment (`#p=` password, `#k=` opener key). They reach no server log, because browsers do not send fragments. */
export function secretsOf(fragment: string): Pick<Link, 'password' | 'openerKey'> {
  const fields = new URLSearchParams(fragment.replace(/^#/, ''));
  const bounded = (value: string | null): string | null => (value !== null && value !== '' && value.length <= SECRET_LIMIT ? value : null);
  return { password: bounded(fields.get('p')), openerKey: bounded(fields.get('k')) };
}

/**
 * Reads what somebody pasted: a whole link of this host, a path, or a bare room id. Null when it is none of these; a link to another host is none, since
 * the page talks to its own host only.
 */
export function parsePasted(text: string, origin: string): Link | null {
  const trimmed = text.trim();
  if (trimmed === '' || trimmed.length > 2048) {
    return null;
  }
  if (/^[a-z2-7]{26}$/i.test(trimmed)) {
    return { roomId: trimmed.toLowerCase(), password: null, openerKey: null };
  }
  let url: URL;
  try {
    url = new URL(trimmed, origin);
  } catch {
    return null;
  }
  const roomId = roomOf(url.pathname);
  if (roomId === null || url.origin !== origin) {
    return null;
  }
  return { roomId, ...secretsOf(url.hash) };
}

/** The path and fragment of a link. */
export function pathOf(link: Link): string {
  const fragment = new URLSearchParams();
  if (link.password !== null) {
    fragment.set('p', link.password);
  }
  if (link.openerKey !== null) {
    fragment.set('k', link.openerKey);
  }
  const text = fragment.toString();
  return `/c/${link.roomId}${text === '' ? '' : `#${text}`}`;
}
