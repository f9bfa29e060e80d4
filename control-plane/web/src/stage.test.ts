// SPDX-License-Identifier: EUPL-1.2
import { describe, expect, it } from 'vitest';

import type { Person } from './roster';
import { fit, Stage, tileKey } from './stage';
import { person } from './testing';

const share = { screen_share: { sid: 's', muted: false, media: 1 } };
const crowd = (count: number): Person[] => Array.from({ length: count }, (_, index) => person(`p${index}`, { local: index === 0, joinedAt: index }));
const shown = (stage: Stage): string[] => stage.layout().tiles.map((tile) => tile.identity);

describe('the grid', () => {
  it('fills a wide window and a phone sensibly', () => {
    const wide = { width: 1264, height: 640 };
    expect(fit(1, wide)).toEqual({ columns: 1, rows: 1 });
    expect(fit(2, wide)).toEqual({ columns: 2, rows: 1 });
    expect(fit(4, wide)).toEqual({ columns: 2, rows: 2 });
    expect(fit(9, wide)).toEqual({ columns: 3, rows: 3 });
    const phone = { width: 344, height: 560 };
    expect(fit(2, phone)).toEqual({ columns: 1, rows: 2 });
    expect(fit(5, phone)).toEqual({ columns: 2, rows: 3 });
    expect(fit(6, phone)).toEqual({ columns: 2, rows: 3 });
  });

  it('never draws more cells than needed, nor none, at any size', () => {
    for (const size of [{ width: 0, height: 0 }, { width: 320, height: 200 }, { width: 344, height: 560 }, { width: 1264, height: 640 }, { width: 3800, height: 2000 }]) {
      for (let count = 0; count <= 60; count += 1) {
        const { columns, rows } = fit(count, size);
        expect(columns).toBeGreaterThanOrEqual(1);
        expect(rows).toBeGreaterThanOrEqual(1);
        expect(columns * (rows - 1)).toBeLessThan(Math.max(1, Math.min(count, 25)));
      }
    }
  });

  it('shows everybody exactly once over its pages', () => {
    const stage = new Stage();
    stage.handleSize({ width: 344, height: 500 });
    stage.handlePeople(crowd(37));
    const seen: string[] = [];
    const { pages } = stage.layout();
    for (let page = 0; page < pages; page += 1) {
      stage.setPage(page);
      seen.push(...shown(stage));
    }
    expect(pages).toBeGreaterThan(1);
    expect([...seen].sort()).toEqual(crowd(37).map((p) => p.identity).sort());
    expect(new Set(seen).size).toBe(37);
  });

  it('stays on a page that exists when people leave', () => {
    const stage = new Stage();
    stage.handleSize({ width: 344, height: 500 });
    stage.handlePeople(crowd(37));
    stage.setPage(99);
    stage.handlePeople(crowd(3));
    expect(stage.layout()).toMatchObject({ page: 0, pages: 1 });
    expect(shown(stage)).toHaveLength(3);
  });

  it('brings a speaker of a later page to the first, in place of somebody silent, and keeps everybody', () => {
    const stage = new Stage();
    stage.handleSize({ width: 344, height: 500 });
    stage.handlePeople(crowd(30));
    const before = shown(stage);
    expect(before).not.toContain('p29');
    stage.handleSpeakers([before[1] ?? ''], 1000);
    stage.handleSpeakers(['p29'], 2000);
    expect(shown(stage)).toContain('p29');
    expect(shown(stage)).toContain(before[1]);
    expect(shown(stage)[0]).toBe('p0');
    expect(shown(stage)).toHaveLength(before.length);
  });

  it('does not move pictures when nothing but the state of people changes', () => {
    const stage = new Stage();
    stage.handlePeople(crowd(6));
    const before = shown(stage);
    stage.handlePeople([...crowd(6)].reverse().map((p) => ({ ...p, hand: 1 })));
    expect(shown(stage)).toEqual(before);
  });
});

describe('the large place', () => {
  it('belongs to the newest screen of somebody else, in either mode', () => {
    const stage = new Stage();
    const [me, a, b] = [person('me', { local: true, tracks: share }), person('a', { joinedAt: 1, tracks: share }), person('b', { joinedAt: 2 })];
    stage.handlePeople([me, a, b]);
    expect(stage.layout().focus).toEqual({ identity: 'a', source: 'screen_share' });
    expect(stage.layout().tiles.map(tileKey)).toEqual(['screen_share/me', 'camera/me', 'camera/a', 'camera/b']);
  });

  it('never shows me my own screen large', () => {
    const stage = new Stage();
    stage.handlePeople([person('me', { local: true, tracks: share }), person('a')]);
    expect(stage.layout().focus).toBeNull();
  });

  it('follows the speaker in speaker view, but not each cough', () => {
    const stage = new Stage();
    stage.handlePeople([person('me', { local: true }), person('a'), person('b')]);
    stage.setMode('speaker');
    stage.handleSpeakers(['a'], 10_000);
    expect(stage.layout().focus?.identity).toBe('a');
    stage.handleSpeakers(['b'], 10_500);
    expect(stage.layout().focus?.identity).toBe('a');
    stage.handleSpeakers(['b', 'a'], 13_000);
    expect(stage.layout().focus?.identity).toBe('a');
    stage.handleSpeakers(['b'], 13_500);
    expect(stage.layout().focus?.identity).toBe('b');
    stage.handleSpeakers(['me'], 20_000);
    expect(stage.layout().focus?.identity).toBe('b');
  });

  it('keeps what is pinned until it is gone', () => {
    const stage = new Stage();
    const people = [person('me', { local: true }), person('a'), person('b', { tracks: share })];
    stage.handlePeople(people);
    stage.togglePin({ identity: 'a', source: 'camera' });
    expect(stage.layout().focus).toEqual({ identity: 'a', source: 'camera' });
    stage.handlePeople(people.filter((p) => p.identity !== 'a'));
    expect(stage.pinned).toBeNull();
    expect(stage.layout().focus).toEqual({ identity: 'b', source: 'screen_share' });
  });
});
