// SPDX-License-Identifier: EUPL-1.2
// A wall clock that a test holds in its hand: preloaded into redis-server, it answers with the microseconds that stand in the file
// PLENUM_TEST_CLOCK. Nothing else of the server is touched; its monotonic clock goes on.

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *micros;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("PLENUM_TEST_CLOCK");
  int file = path ? open(path, O_RDONLY) : -1;
  void *page = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
  if (page == MAP_FAILED) _exit(77);
  close(file);
  micros = page;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  now->tv_sec = *micros / 1000000;
  now->tv_usec = *micros % 1000000;
  return 0;
}

time_t time(time_t *out) {
  time_t now = *micros / 1000000;
  if (out) *out = now;
  return now;
}
