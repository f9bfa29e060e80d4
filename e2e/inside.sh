#!/usr/bin/env bash
# SPDX-License-Identifier: EUPL-1.2
# First process of the namespaces that a test runs in (`unshare --net --mount --pid --fork --kill-child --mount-proc`):
# gives them an address, locks the way out and runs the command it is given. When it ends, its process namespace ends with
# it, and so does everything that a test has left running.
set -euo pipefail

ip link set lo up
# Firefox gathers no loopback candidates, so the machine needs an address; a bridge without ports carries one on
# every kernel, `dummy` is missing on some.
ip link add name machine type bridge
ip address add 10.99.0.1/24 dev machine
ip address add fd99::1/64 dev machine nodad
ip link set machine up
# The default route lets programs find their primary address; what tries to use it is refused at once and counted.
ip route add default via 10.99.0.254
nft -f - <<'RULES'
table inet way_out {
  counter refused { }
  chain output {
    type filter hook output priority 0; policy accept;
    oifname "lo" accept
    ip daddr 10.99.0.0/24 accept
    ip6 daddr { fd99::/64, fe80::/10, ff00::/8 } accept
    ip daddr 224.0.0.0/4 accept
    counter name refused reject
  }
}
RULES

if [ -z "${PLENUM_E2E_QUIET:-}" ] && command -v pulseaudio >/dev/null; then
  # A sound card that nobody hears: without one Firefox starts no AudioContext.
  XDG_RUNTIME_DIR="$(mktemp -d)"
  export XDG_RUNTIME_DIR PULSE_SERVER="unix:$XDG_RUNTIME_DIR/native"
  trap 'rm -rf "$XDG_RUNTIME_DIR"' EXIT
  pulseaudio -n --daemonize=no --exit-idle-time=-1 --use-pid-file=no --disable-shm=yes --log-level=error \
    --load=module-null-sink \
    --load="module-native-protocol-unix socket=$XDG_RUNTIME_DIR/native auth-anonymous=1" 2>"$XDG_RUNTIME_DIR/log" &
fi

"$@"
