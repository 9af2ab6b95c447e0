/* access_log.h: one line a request, and the form of all other lines.
 *
 * Text: "... info request id=a1 method="GET" path="/health" status=200 ms=0.310 in=0 out=17
 * prompt_tokens=0 new_tokens=0 cut=no". JSON: one object a line with the same members ("request" is the id),
 * and for other lines {"time", "level", "message"}. Never a query, a body, a prompt or a key. Control
 * characters, bidirectional marks and bytes that are not UTF-8 are escaped. */
#ifndef STEERD_SERVER_ACCESS_LOG_H
#define STEERD_SERVER_ACCESS_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/buffer.h"

struct access_entry {
  const char *id, *method, *path; /* path: at most 200 characters of it are written */
  int status;                     /* 0: the connection ended before a reply was chosen */
  int64_t ns;
  uint64_t bytes_in, bytes_out;   /* bodies */
  int64_t prompt_tokens, new_tokens;
  bool cut;                       /* the client went away before the reply was complete */
};

/* Chooses the form of every line of the process, and whether requests are written. Before any thread. */
void access_log_install(bool json, bool requests);

/* From start to stop lines of requests are gathered for some milliseconds and written together by a thread; else each is
 * written at once. Other lines are written at once always, behind what was gathered before them. */
void access_log_start(void);
void access_log_stop(void); /* everything is written when it returns */

void access_log_write(const struct access_entry *entry);

/* A quoted JSON string; what could disturb a terminal or a log reader becomes \uXXXX. */
void access_log_quote(struct buffer *out, const char *text, size_t most);

#endif
