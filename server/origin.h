/* origin.h: which web pages may talk to us.
 *
 * A page in somebody's browser can send requests to loopback. Two lists keep it out: the Host header must be
 * localhost, an IP address or a configured name (a rebinding attack needs a name of its own), and an Origin,
 * where one is sent, must be of this machine, the same origin, or configured. */
#ifndef STEERD_SERVER_ORIGIN_H
#define STEERD_SERVER_ORIGIN_H

#include <stdbool.h>
#include <stddef.h>

struct origin_list {
  const char *const *items;
  size_t count;
};

enum origin_host { ORIGIN_HOST_GOOD, ORIGIN_HOST_MALFORMED, ORIGIN_HOST_UNKNOWN };

/* The Host header "name[:port]"; the port is not compared. One dot at the end of a name is ignored. */
enum origin_host origin_check_host(const char *host, struct origin_list names);

/* Whether pages of this origin ("http://localhost:3000") may use the API, reached as `host`. "null" never. */
bool origin_allowed(const char *origin, const char *host, struct origin_list allowed);

/* True for 127.0.0.0/8, ::1 and localhost, without brackets or port. */
bool origin_is_loopback(const char *name);

#endif
