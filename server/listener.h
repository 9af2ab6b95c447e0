/* listener.h: a TCP address to answer on. */
#ifndef STEERD_SERVER_LISTENER_H
#define STEERD_SERVER_LISTENER_H

#include <stdbool.h>

#include "core/base/error.h"

struct listener {
  int fd;         /* -1 when closed */
  char url[80];   /* "http://127.0.0.1:8080", with the real port */
  bool loopback, any; /* any: 0.0.0.0 or [::], which is no address to ask */
};

/* Binds "ADDR:PORT" ("127.0.0.1:8080", "[::1]:0", "localhost:8080"), without answering yet. ERROR_ARGUMENT
 * for an address that cannot be read, ERROR_IO for one that cannot be had. */
int listener_open(const char *address, struct listener *out, struct error *error) MUST_CHECK;

/* From here on clients may connect. ERROR_IO. */
int listener_listen(struct listener *listener, struct error *error) MUST_CHECK;

void listener_close(struct listener *listener);

#endif
