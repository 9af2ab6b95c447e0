/* pull_int.h: what both places that things are brought from need: how far it is, URLs, room on the disk. Private to core/pull/. */
#ifndef STEERD_CORE_PULL_INT_H
#define STEERD_CORE_PULL_INT_H

#include "core/base/buffer.h"
#include "core/pull.h"

#define PULL_PATH_BYTES 4096

/* How far it is. */
struct pull_meter {
  bool (*tell)(void *context, const struct pull_progress *progress); /* may be NULL */
  void *context;
  const char *file;                /* on its way; "" while somebody else brings it */
  int64_t total, done, done_first; /* bytes of what is wanted: all, those here without the file on its way, those at the beginning */
  int64_t began_ns, told_ns;
};

/* From here on time counts; `done` is what was there before. */
void pull_meter_begin(struct pull_meter *meter);

/* `tell` of a fetch: `bytes` of the file on its way are there. Tells on a few times a second; true: stop. */
bool pull_meter_tell(void *meter, int64_t bytes);

/* Appends text to a URL: what is not a plain character goes as %XX; slashes stay where `slashes`. */
void pull_escape(struct buffer *url, const char *text, bool slashes);

/* The value of an environment variable that names a place on the network, or `usual` where it is not set or empty. ERROR_ARGUMENT: not
 * http:// or https://, or longer than 500 bytes; HF_HUB_OFFLINE is set: nothing may be fetched at all. NULL then. */
const char *pull_endpoint(const char *variable, const char *usual, struct error *error) MUST_CHECK;

/* An empty file of this process alone in TMPDIR (/tmp); the caller unlinks it. ERROR_IO. */
int pull_temporary(char path[PULL_PATH_BYTES], struct error *error) MUST_CHECK;

/* ERROR_IO where the disk of `folder` has less room than `needed` bytes; the text names the variable that moves the folder. 0 where
 * nobody can tell: writing will. */
int pull_check_room(const char *folder, int64_t needed, const char *variable, struct error *error) MUST_CHECK;

#endif
