/* cors.c: which web pages may read our answers: those of loopback and of the configured origins, never all. */
#include <string.h>

#include "api/call.h"

/* Skips a scheme that a page can have; NULL when it is another. */
static const char *skip_scheme(const char *origin) {
  if (strncmp(origin, "http://", 7) == 0) return origin + 7;
  if (strncmp(origin, "https://", 8) == 0) return origin + 8;
  return NULL;
}

/* host[0..length) is 127.x.y.z; a name such as 127.evil.org is not. */
static bool loopback_digits(const char *host, size_t length) {
  if (length > 15 || strncmp(host, "127.", 4) != 0) return false;
  int dots = 0;
  for (size_t i = 0; i < length; i++) {
    if (host[i] == '.')
      dots++;
    else if (host[i] < '0' || host[i] > '9')
      return false;
  }
  return dots == 3 && host[length - 1] != '.';
}

static bool is_loopback(const char *origin) {
  const char *host = skip_scheme(origin);
  if (!host) return false;
  size_t length = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
  if (length > strlen(host)) return false;
  const char *port = host + length;
  if (*port == ':') port += 1 + strspn(port + 1, "0123456789");
  if (*port != '\0') return false;
  return (length == 9 && memcmp(host, "localhost", 9) == 0) || (length == 5 && memcmp(host, "[::1]", 5) == 0) ||
         loopback_digits(host, length);
}

bool cors_allowed(const char *origin, const char *list) {
  if (is_loopback(origin)) return true;
  size_t length = strlen(origin);
  for (const char *at = list; at && *at;) {
    at += strspn(at, ", ");
    size_t n = strcspn(at, ", ");
    if (n > 0 && n == length && memcmp(at, origin, n) == 0) return true;
    at += n;
  }
  return false;
}

void cors_apply(struct api_call *call) {
  const char *origin = request_header(call->request, "Origin");
  if (!origin) return;
  call_add_header(call, "Vary", "Origin");
  if (!cors_allowed(origin, call->api->options.cors_origins)) return;
  call_add_header(call, "Access-Control-Allow-Origin", origin);
  if (strcmp(call->request->method, "OPTIONS") != 0) {
    call_add_header(call, "Access-Control-Expose-Headers", "X-Request-Id, Retry-After, X-Total-Count, Link");
    return;
  }
  call_add_header(call, "Access-Control-Allow-Methods", "GET, POST, DELETE");
  call_add_header(call, "Access-Control-Allow-Headers",
                  "Content-Type, Authorization, X-Api-Key, X-Secret-Key, X-Request-Id");
  call_add_header(call, "Access-Control-Max-Age", "600");
}
