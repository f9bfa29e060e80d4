// SPDX-License-Identifier: EUPL-1.2
import { describe, expect, it } from 'vitest';

import { Emitter } from './events';

class Bell extends Emitter<{ ring: [number] }> {
  ring(times: number): void {
    this.emit('ring', times);
  }
}

describe('events', () => {
  it('reach every listener until it stops listening', () => {
    const bell = new Bell();
    const heard: string[] = [];
    const stop = bell.on('ring', (times) => heard.push(`a${times}`));
    bell.on('ring', (times) => heard.push(`b${times}`));
    bell.ring(1);
    stop();
    bell.ring(2);
    expect(heard).toEqual(['a1', 'b1', 'b2']);
  });

  it('reach everybody who listened when they began, though one stops meanwhile', () => {
    const bell = new Bell();
    const heard: string[] = [];
    const stops: (() => void)[] = [];
    bell.on('ring', () => stops[0]?.());
    stops[0] = bell.on('ring', () => heard.push('second'));
    bell.ring(1);
    bell.ring(2);
    expect(heard).toEqual(['second']);
  });
});
