// SPDX-License-Identifier: EUPL-1.2
import { Emitter } from './events';
import type { Person, Source } from './roster';

/** How the stage is arranged. */
export type Mode = 'grid' | 'speaker';

/** One picture on the stage. */
export interface Tile {
  readonly identity: string;
  readonly source: Extract<Source, 'camera' | 'screen_share'>;
}

/** What the view draws. `focus` is shown large; the rest in a grid of `columns`. */
export interface Layout {
  readonly focus: Tile | null;
  readonly tiles: readonly Tile[];
  readonly columns: number;
  readonly rows: number;
  readonly page: number;
  readonly pages: number;
}

/** Size of the stage in CSS pixels. */
export interface Size {
  readonly width: number;
  readonly height: number;
}

const GAP = 8;
/** Shapes a picture may take: from nearly square on phones to the camera's own. The style sheet clamps to the same. */
const NARROWEST = 1.2;
const WIDEST = 1.9;
/** Decoding more pictures at once than this helps nobody. */
const MOST_PER_PAGE = 25;
const LEAST_WIDTH = 148;
/** A speaker keeps the large place at least this long, so that a cough does not flip the picture. */
const HOLD_MS = 2000;

/** A name for a tile, unique in the room. */
export function tileKey(tile: Tile): string {
  return `${tile.source}/${tile.identity}`;
}

/** Columns and rows that give `count` pictures the most area without cutting much away; fewer pictures where they would become too small. */
export function fit(count: number, size: Size): { columns: number; rows: number } {
  const most = Math.min(Math.max(1, count), MOST_PER_PAGE);
  const least = Math.min(LEAST_WIDTH, Math.max(1, (size.width - GAP) / 2));
  let best = { columns: 1, rows: 1, area: -1, shown: 0 };
  for (let columns = 1; columns <= most; columns += 1) {
    const width = (size.width - GAP * (columns - 1)) / columns;
    if (columns > 1 && width < least) {
      break;
    }
    const wanted = Math.ceil(most / columns);
    // Rows that still leave each picture a height to be recognised by.
    const possible = Math.max(1, Math.floor((size.height + GAP) / (Math.min(width, least) / WIDEST + GAP)));
    const rows = Math.min(wanted, possible);
    const height = (size.height - GAP * (rows - 1)) / rows;
    const shown = Math.min(most, rows * columns);
    const area = Math.min(width, height * WIDEST) * Math.min(height, width / NARROWEST);
    if (shown > best.shown || (shown === best.shown && area > best.area)) {
      best = { columns, rows, area, shown };
    }
  }
  return { columns: best.columns, rows: best.rows };
}

/** Decides who is seen where. Time comes in as an argument. */
export class Stage extends Emitter<{ change: [] }> {
  #people: readonly Person[] = [];
  #mode: Mode = 'grid';
  #size: Size = { width: 1280, height: 720 };
  #pinned: string | null = null;
  #speaker: string | null = null;
  #speakerSince = 0;
  #page = 0;
  /** Identities in the order of the grid: stable, so that pictures do not jump. */
  #order: string[] = [];
  #lastSpoke = new Map<string, number>();

  get mode(): Mode {
    return this.#mode;
  }

  /** Key of the pinned tile. */
  get pinned(): string | null {
    return this.#pinned;
  }

  handlePeople(people: readonly Person[]): void {
    this.#people = people;
    const present = new Set(people.map((person) => person.identity));
    this.#order = this.#order.filter((identity) => present.has(identity));
    for (const person of [...people].sort((a, b) => Number(b.local) - Number(a.local) || a.joinedAt - b.joinedAt)) {
      if (!this.#order.includes(person.identity)) {
        this.#order.push(person.identity);
      }
    }
    for (const identity of this.#lastSpoke.keys()) {
      if (!present.has(identity)) {
        this.#lastSpoke.delete(identity);
      }
    }
    if (this.#speaker !== null && !present.has(this.#speaker)) {
      this.#speaker = null;
    }
    const tiles = this.#tiles();
    if (this.#pinned !== null && !tiles.some((tile) => tileKey(tile) === this.#pinned)) {
      this.#pinned = null;
    }
    this.emit('change');
  }

  /** Who speaks now, the loudest first. */
  handleSpeakers(identities: readonly string[], nowMs: number): void {
    for (const identity of identities) {
      this.#lastSpoke.set(identity, nowMs);
    }
    const others = identities.filter((identity) => this.#people.some((person) => person.identity === identity && !person.local));
    const loudest = others[0];
    const still = this.#speaker !== null && others.includes(this.#speaker);
    if (loudest !== undefined && !still && (this.#speaker === null || nowMs - this.#speakerSince >= HOLD_MS)) {
      this.#speaker = loudest;
      this.#speakerSince = nowMs;
    }
    this.#bringForward(others);
    this.emit('change');
  }

  handleSize(size: Size): void {
    if (Math.round(size.width) !== Math.round(this.#size.width) || Math.round(size.height) !== Math.round(this.#size.height)) {
      this.#size = size;
      this.emit('change');
    }
  }

  setMode(mode: Mode): void {
    this.#mode = mode;
    this.#pinned = null;
    this.emit('change');
  }

  /** Shows one picture large until it is unpinned or gone. */
  togglePin(tile: Tile): void {
    const key = tileKey(tile);
    this.#pinned = this.#pinned === key ? null : key;
    this.emit('change');
  }

  setPage(page: number): void {
    this.#page = page;
    this.emit('change');
  }

  /** The arrangement for the present size. */
  layout(): Layout {
    const tiles = this.#tiles();
    const focus = this.#focus(tiles);
    const rest = focus === null ? tiles : tiles.filter((tile) => tileKey(tile) !== tileKey(focus));
    if (focus !== null) {
      return { focus, tiles: rest, columns: 1, rows: 1, page: 0, pages: 1 };
    }
    const { columns, rows } = fit(rest.length, this.#size);
    const perPage = columns * rows;
    const pages = Math.max(1, Math.ceil(rest.length / perPage));
    const page = Math.min(Math.max(0, this.#page), pages - 1);
    return { focus: null, tiles: rest.slice(page * perPage, (page + 1) * perPage), columns, rows, page, pages };
  }

  #tiles(): Tile[] {
    const byIdentity = new Map(this.#people.map((person) => [person.identity, person]));
    const screens: Tile[] = [];
    const cameras: Tile[] = [];
    for (const identity of this.#order) {
      const person = byIdentity.get(identity);
      if (!person) {
        continue;
      }
      if (person.tracks.screen_share) {
        screens.push({ identity, source: 'screen_share' });
      }
      cameras.push({ identity, source: 'camera' });
    }
    return [...screens, ...cameras];
  }

  #focus(tiles: readonly Tile[]): Tile | null {
    const pinned = tiles.find((tile) => tileKey(tile) === this.#pinned);
    if (pinned) {
      return pinned;
    }
    const local = new Set(this.#people.filter((person) => person.local).map((person) => person.identity));
    // The own screen is not shown large to oneself: it would show the page within the page.
    const screens = tiles.filter((tile) => tile.source === 'screen_share' && !local.has(tile.identity));
    const screen = screens[screens.length - 1];
    if (screen) {
      return screen;
    }
    if (this.#mode === 'grid') {
      return null;
    }
    const cameras = tiles.filter((tile) => tile.source === 'camera');
    return cameras.find((tile) => tile.identity === this.#speaker) ?? cameras.find((tile) => !local.has(tile.identity)) ?? cameras[0] ?? null;
  }

  /** Somebody who speaks on a later page changes places with whoever on the first page has been silent longest. */
  #bringForward(speakers: readonly string[]): void {
    const tiles = this.#tiles();
    const { columns, rows } = fit(tiles.length, this.#size);
    const firstPage = columns * rows - (tiles.length - this.#order.length);
    for (const identity of speakers) {
      const at = this.#order.indexOf(identity);
      if (at < firstPage || firstPage < 2) {
        continue;
      }
      let silent = 1;
      for (let index = 1; index < firstPage; index += 1) {
        const spoke = (where: number): number => this.#lastSpoke.get(this.#order[where] ?? '') ?? 0;
        if (spoke(index) < spoke(silent)) {
          silent = index;
        }
      }
      const other = this.#order[silent];
      if (other !== undefined) {
        this.#order[silent] = identity;
        this.#order[at] = other;
      }
    }
  }
}
