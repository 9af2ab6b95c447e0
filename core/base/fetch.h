/* fetch.h: a file over HTTP, brought by the program `curl`, which knows TLS, proxies, redirects and certificates of this machine.
 *
 * The daemon never calls this: only the verb that brings models does, so that nothing a client sends makes this process
 * open a connection. */
#ifndef STEERD_CORE_BASE_FETCH_H
#define STEERD_CORE_BASE_FETCH_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"

struct fetch {
  const char *url;     /* http:// or https://; from https it is never led to http */
  const char *token;   /* sent as "Authorization: Bearer ...", to the url's own host alone; NULL: none */
  const char *path;    /* where it goes. What is there already is its beginning, and only the rest is asked for */
  int64_t most;        /* bytes it may have; 0: no bound */
  /* Called many times a second with the bytes that are there; true ends the fetch. NULL: never. */
  bool (*tell)(void *context, int64_t bytes);
  void *context;
};

/* 0: there was an answer. Its status stands in *status: 200 (or 206) with the whole file at `path`, or what the server refused with, and
 * then `path` has only what was there before. -1: ERROR_IO with curl's own words (no such host, no way to it, the disk is full), ERROR_NOT_FOUND
 * where there is no curl, ERROR_CANCELLED; what has come so far stays at `path`. A connection that breaks off is
 * made again as long as each brings more bytes; a server that cannot send parts is asked for the whole. */
int fetch_file(const struct fetch *fetch, int *status, struct error *error) MUST_CHECK;

#endif
