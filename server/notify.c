/* notify.c: a datagram to whoever started the daemon. Refuses to know what is done with it, and needs no library for it. */
#include "server/notify.h"

#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* A path, or "@NAME" in the abstract name space, which begins with a NUL. 0 for what is neither. */
static socklen_t manager_address(const char *place, struct sockaddr_un *out) {
  size_t length = strlen(place);
  memset(out, 0, sizeof *out);
  out->sun_family = AF_UNIX;
  if ((*place != '/' && *place != '@') || length < 2 || length >= sizeof out->sun_path) return 0;
  memcpy(out->sun_path, place, length);
  if (*place == '@') out->sun_path[0] = '\0';
  return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
}

int notify_watchdog_ms(void) {
  const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
  if (!usec || (pid && strtoll(pid, NULL, 10) != (long long)getpid())) return 0;
  long long ms = strtoll(usec, NULL, 10) / 2000;
  return ms < 1 ? 0 : ms > INT_MAX ? INT_MAX : (int)ms;
}

void notify_manager(const char *state) {
  const char *place = getenv("NOTIFY_SOCKET");
  struct sockaddr_un address;
  socklen_t size = place ? manager_address(place, &address) : 0;
  if (!size) return;
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&address, size);
  close(fd);
}
