// SPDX-License-Identifier: EUPL-1.2
// Holds the namespaces of a pod in the test cluster: sleeps, and as their first process buries the others.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void leave(int number) {
  (void)number;
  _exit(0);
}

static void bury(int number) {
  (void)number;
  while (waitpid(-1, 0, WNOHANG) > 0) {
  }
}

int main(void) {
  struct sigaction end = {.sa_handler = leave};
  struct sigaction child = {.sa_handler = bury, .sa_flags = SA_NOCLDSTOP | SA_RESTART};
  if (sigaction(SIGINT, &end, 0) || sigaction(SIGTERM, &end, 0) || sigaction(SIGCHLD, &child, 0)) {
    return 1;
  }
  for (;;) {
    pause();
  }
}
