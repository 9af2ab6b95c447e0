/* Owns listening sockets before they are handed to the library. */
#include "server/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/number.h"
#include "server/origin.h"

enum { BACKLOG = 256 };

union address {
  struct sockaddr any;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
};

static int bad_address(const char *text, struct error *error) {
  return error_set(error, ERROR_ARGUMENT,
                   "listen: '%.100s' is not ADDR:PORT; examples: 127.0.0.1:8080, [::1]:8080, 0.0.0.0:8080",
                   text);
}

static int read_address(const char *text, union address *out, struct error *error) {
  char name[64];
  int64_t port;
  bool brackets = text[0] == '[';
  const char *colon = strrchr(text, ':'), *end = brackets ? strchr(text, ']') : colon;
  size_t length = end ? (size_t)(end - text) - brackets : 0;
  if (!colon || !end || length == 0 || length >= sizeof name || (brackets && end + 1 != colon))
    return bad_address(text, error);
  memcpy(name, text + brackets, length);
  name[length] = '\0';
  if (!number_parse_int(colon + 1, &port) || port < 0 || port > 65535) return bad_address(text, error);
  memset(out, 0, sizeof *out);
  if (brackets) {
    out->v6.sin6_family = AF_INET6;
    out->v6.sin6_port = htons((uint16_t)port);
    return inet_pton(AF_INET6, name, &out->v6.sin6_addr) == 1 ? 0 : bad_address(text, error);
  }
  out->v4.sin_family = AF_INET;
  out->v4.sin_port = htons((uint16_t)port);
  const char *number = strcmp(name, "localhost") ? name : "127.0.0.1";
  return inet_pton(AF_INET, number, &out->v4.sin_addr) == 1 ? 0 : bad_address(text, error);
}

static socklen_t address_size(const union address *a) {
  return a->any.sa_family == AF_INET6 ? sizeof a->v6 : sizeof a->v4;
}

static void describe(struct listener *listener, const union address *a) {
  char name[INET6_ADDRSTRLEN] = "";
  bool v6 = a->any.sa_family == AF_INET6;
  const void *bytes = v6 ? (const void *)&a->v6.sin6_addr : (const void *)&a->v4.sin_addr;
  inet_ntop(a->any.sa_family, bytes, name, sizeof name);
  unsigned port = ntohs(v6 ? a->v6.sin6_port : a->v4.sin_port);
  snprintf(listener->url, sizeof listener->url, v6 ? "http://[%s]:%u" : "http://%s:%u", name, port);
  listener->loopback = origin_is_loopback(name);
  listener->any = v6 ? IN6_IS_ADDR_UNSPECIFIED(&a->v6.sin6_addr) : a->v4.sin_addr.s_addr == htonl(INADDR_ANY);
}

static int cannot(const char *address, struct error *error) {
  const char *remedy = errno == EADDRINUSE
                           ? "; is another steerd running there? choose another port, such as --listen 127.0.0.1:8081"
                       : errno == EACCES ? "; ports below 1024 need a privilege"
                                         : "";
  return error_set(error, ERROR_IO, "cannot listen on %s: %s%s", address, strerror(errno), remedy);
}

int listener_open(const char *address, struct listener *out, struct error *error) {
  union address a;
  memset(out, 0, sizeof *out);
  out->fd = -1;
  if (read_address(address, &a, error)) return -1;
  int on = 1;
  out->fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (out->fd < 0) return cannot(address, error);
  setsockopt(out->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  /* [::] stays IPv6, so that 0.0.0.0 beside it is no conflict. */
  if (a.any.sa_family == AF_INET6) setsockopt(out->fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  socklen_t size = address_size(&a);
  if (bind(out->fd, &a.any, size) || getsockname(out->fd, &a.any, &size)) {
    cannot(address, error);
    listener_close(out);
    return -1;
  }
  describe(out, &a);
  return 0;
}

int listener_listen(struct listener *listener, struct error *error) {
  return listen(listener->fd, BACKLOG) ? cannot(listener->url + strlen("http://"), error) : 0;
}

void listener_close(struct listener *listener) {
  if (listener->fd >= 0) close(listener->fd);
  listener->fd = -1;
}
