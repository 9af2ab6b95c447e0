/* Owns the Host and Origin allow-lists. Refuses to know requests and replies. */
#include "server/origin.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { NAME_BYTES = 256 };

/* "name:port" taken apart; brackets of an IPv6 address are dropped. */
struct authority {
  char name[NAME_BYTES];
  int port;       /* -1: none given */
  bool bracketed;
};

static bool read_port(const char *text, int *port) {
  size_t n = strlen(text);
  if (n == 0 || n > 5 || strspn(text, "0123456789") != n) return false;
  *port = atoi(text);
  return *port <= 65535;
}

static bool read_authority(const char *text, struct authority *out) {
  memset(out, 0, sizeof *out);
  out->port = -1;
  out->bracketed = text[0] == '[';
  const char *begin = text + out->bracketed;
  size_t length = strcspn(begin, out->bracketed ? "]" : ":");
  if (length == 0 || length >= NAME_BYTES || (out->bracketed && begin[length] != ']')) return false;
  for (size_t i = 0; i < length; i++) out->name[i] = (char)tolower((unsigned char)begin[i]);
  const char *rest = begin + length + out->bracketed;
  return !*rest || (*rest == ':' && read_port(rest + 1, &out->port));
}

static bool is_name(const char *text) {
  return strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789.-_") == strlen(text) && text[0] != '.' &&
         text[0] != '-';
}

static bool is_v4(const char *text) {
  struct in_addr address;
  return inet_pton(AF_INET, text, &address) == 1;
}

static bool is_v6(const char *text) {
  struct in6_addr address;
  return inet_pton(AF_INET6, text, &address) == 1;
}

bool origin_is_loopback(const char *name) {
  struct in6_addr v6;
  if (!strcasecmp(name, "localhost")) return true;
  if (is_v4(name)) return !strncmp(name, "127.", 4);
  return inet_pton(AF_INET6, name, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

static void drop_final_dot(char *name) {
  size_t n = strlen(name);
  if (n > 1 && name[n - 1] == '.') name[n - 1] = '\0';
}

enum origin_host origin_check_host(const char *host, struct origin_list names) {
  struct authority a;
  if (!read_authority(host, &a)) return ORIGIN_HOST_MALFORMED;
  if (a.bracketed) return is_v6(a.name) ? ORIGIN_HOST_GOOD : ORIGIN_HOST_MALFORMED;
  if (!is_name(a.name)) return ORIGIN_HOST_MALFORMED;
  drop_final_dot(a.name);
  if (is_v4(a.name) || !strcmp(a.name, "localhost")) return ORIGIN_HOST_GOOD;
  for (size_t i = 0; i < names.count; i++)
    if (!strcasecmp(names.items[i], a.name)) return ORIGIN_HOST_GOOD;
  return ORIGIN_HOST_UNKNOWN;
}

bool origin_allowed(const char *origin, const char *host, struct origin_list allowed) {
  for (size_t i = 0; i < allowed.count; i++)
    if (!strcasecmp(allowed.items[i], origin)) return true;
  bool secure = !strncasecmp(origin, "https://", 8);
  if (!secure && strncasecmp(origin, "http://", 7)) return false;
  struct authority page, us;
  if (!read_authority(origin + 7 + secure, &page) || !read_authority(host, &us)) return false;
  if (page.bracketed ? is_v6(page.name) : is_name(page.name)) {
    if (origin_is_loopback(page.name)) return true;
    int port = page.port >= 0 ? page.port : secure ? 443 : 80;
    int our_port = us.port >= 0 ? us.port : secure ? 443 : 80;
    return !strcmp(page.name, us.name) && port == our_port;
  }
  return false;
}
