// SPDX-License-Identifier: EUPL-1.2
// Loss on purpose, by nftables in the run's network namespace. Media ports are those of the quickstart's pool.

import { spawnSync } from 'node:child_process';

const PORTS = '20000-20255';
const SERVER_SENDS = `udp sport ${PORTS}`;
const CLIENT_SENDS = `udp dport ${PORTS}`;
/** RFC 7983: a first byte of 20 to 63 is DTLS. */
const DTLS = '@th,64,8 20-63';
const NONE = 0xffff_ffff;

function nft(script) {
  const run = spawnSync('nft', ['-f', '-'], { input: script, encoding: 'utf8' });
  if (run.status !== 0) throw new Error(`nft: ${run.stderr}\n${script}`);
}

function rules(lines) {
  nft(`table inet loss { }
delete table inet loss
table inet loss {
  counter dropped { }
  chain output {
    type filter hook output priority 10; policy accept;
    ${lines.join('\n    ')}
  }
}`);
}

/** Ends all loss. */
export function none() {
  nft('table inet loss { }\ndelete table inet loss');
}

/** Drops the nth (from 0) DTLS datagram that is sent by `side` from now on, and no other. */
export function dropDatagram(side, nth) {
  const direction = side === 'server' ? SERVER_SENDS : CLIENT_SENDS;
  rules([`${direction} ${DTLS} numgen inc mod ${NONE} ${nth} counter name dropped drop`]);
}

/** Drops a share of all DTLS datagrams of both sides. */
export function dropHandshakes(percent) {
  rules([SERVER_SENDS, CLIENT_SENDS].map((direction) => `${direction} ${DTLS} numgen random mod 100 < ${percent} counter name dropped drop`));
}

/** Drops a share of everything on the media ports in both directions. */
export function dropMedia(percent) {
  rules([SERVER_SENDS, CLIENT_SENDS].map((direction) => `${direction} numgen random mod 1000 < ${Math.round(percent * 10)} counter name dropped drop`));
}

/** Answers every packet to the gateway with a reset: each WebSocket through it is cut as a broken network cuts it. */
export function cutSockets() {
  rules(['tcp dport 7880 counter name dropped reject with tcp reset']);
}

/** How many packets the present rules have taken. */
export function dropped() {
  const run = spawnSync('nft', ['-j', 'list', 'counter', 'inet', 'loss', 'dropped'], { encoding: 'utf8' });
  if (run.status !== 0) throw new Error(`nft: ${run.stderr}`);
  return JSON.parse(run.stdout).nftables.find((entry) => entry.counter).counter.packets;
}
