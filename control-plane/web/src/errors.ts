// SPDX-License-Identifier: EUPL-1.2

/** What a person can do about a failure. */
export type Remedy = 'form' | 'retry' | 'rejoin' | 'none';

/**
 * Every reason the page knows, from the door, from the room and from itself, with what to do about it. Each has a title and a text in both languages
 * (`reason.<name>.title`, `reason.<name>.text`; a test holds that). A reason that is not listed is shown as `Unknown`.
 */
export const REASONS = {
  // The form is wrong; the person stays on it.
  WrongPassword: 'form',
  PasswordRequired: 'form',
  InvalidName: 'form',
  AcknowledgementRequired: 'form',
  Throttled: 'form',
  BadRequest: 'form',
  // The door says no.
  WrongOpenerKey: 'none',
  InvalidToken: 'none',
  UnknownConference: 'none',
  GuestsNotAllowed: 'none',
  Suspended: 'none',
  Revoked: 'none',
  Denied: 'retry',
  LobbyFull: 'retry',
  RoomFull: 'retry',
  Locked: 'retry',
  Closed: 'retry',
  Closing: 'retry',
  // It may pass.
  NoCapacity: 'retry',
  QuotaReached: 'retry',
  Unavailable: 'retry',
  Unreachable: 'retry',
  // The conference is over for this person.
  Left: 'rejoin',
  Ended: 'none',
  Removed: 'none',
  DuplicateIdentity: 'rejoin',
  ConnectionLost: 'rejoin',
  MediaFailure: 'rejoin',
  JoinFailed: 'rejoin',
  // This browser cannot.
  UnsupportedBrowser: 'none',
  NoSuchPage: 'none',
  Unknown: 'retry',
} as const satisfies Record<string, Remedy>;

/** A reason of the table above. */
export type Reason = keyof typeof REASONS;

/** What the server calls otherwise, because operators tell it apart; to a person it is the same. */
const ALIASES: ReadonlyMap<string, Reason> = new Map<string, Reason>(Object.entries({
  NotFound: 'UnknownConference',
  RoomUnknown: 'UnknownConference',
  GuestsForbidden: 'GuestsNotAllowed',
  NotGranted: 'InvalidToken',
  OtherRoom: 'InvalidToken',
  PermissionDenied: 'InvalidToken',
  InvalidArgument: 'BadRequest',
  BodyTooLong: 'BadRequest',
  BodyTooSlow: 'Unreachable',
  TenantSuspended: 'Suspended',
  ConferenceSuspended: 'Suspended',
  TenantRooms: 'QuotaReached',
  TenantParticipants: 'QuotaReached',
  TenantPublishers: 'QuotaReached',
  TenantEgress: 'QuotaReached',
  NodeRooms: 'NoCapacity',
  NodeParticipants: 'NoCapacity',
  NodeEgress: 'NoCapacity',
  // Between two states of the system: the door is asked again.
  NotOpened: 'Unavailable',
  NotYetTime: 'Unavailable',
  NotAdmitted: 'Unavailable',
  WrongEpoch: 'Unavailable',
  DirectoryNotLoaded: 'Unavailable',
  NodeSilent: 'Unavailable',
  Settling: 'Unavailable',
  Contended: 'Unavailable',
  StoreFull: 'Unavailable',
  TooManyReservations: 'Unavailable',
  Internal: 'Unavailable',
} as const));

/** The known reason for a name from the wire. */
export function reasonFor(name: string): Reason {
  if (Object.hasOwn(REASONS, name)) {
    return name as Reason;
  }
  return ALIASES.get(name) ?? (/^Token[A-Z]/.test(name) ? 'InvalidToken' : 'Unknown');
}

/** A failure with a reason that has texts. `wire` keeps the name a server used. */
export class PlenumError extends Error {
  override readonly name = 'PlenumError';

  private constructor(
    readonly reason: Reason,
    readonly wire: string,
    readonly retryAfterSeconds: number | null,
    message: string,
  ) {
    super(message);
  }

  /** A refusal told by a server. */
  static refused(wire: string, retryAfterSeconds: number | null = null, message = wire): PlenumError {
    return new PlenumError(reasonFor(wire), wire, retryAfterSeconds, message);
  }

  /** No answer at all. */
  static unreachable(message: string): PlenumError {
    return new PlenumError('Unreachable', 'Unreachable', null, message);
  }

  /** An answer outside the contract, or one that says that it may pass. */
  static unavailable(message: string, retryAfterSeconds: number | null): PlenumError {
    return new PlenumError('Unavailable', 'Unavailable', retryAfterSeconds, message);
  }
}
