/* hub_write.h: puts files into the cache of the Hugging Face tools (hub.h has its layout), as those tools do, so that what one
 * brings the others find:
 *
 *   blobs/HASH.incomplete   a file on its way, which goes on where it ended
 *   blobs/HASH              a whole one
 *   snapshots/COMMIT/PATH   a link to it
 *   refs/REVISION           written last: the snapshot then has what was wished
 *   ROOT/.locks/models--ORG--NAME/HASH.lock   held by whoever brings it (flock) */
#ifndef STEERD_CORE_MODEL_HUB_WRITE_H
#define STEERD_CORE_MODEL_HUB_WRITE_H

#include <stdbool.h>

#include "core/model/hub.h"
#include "core/model/hub_listing.h"

struct hub_writer {
  char folder[HUB_PATH_BYTES]; /* ROOT/models--ORG--NAME */
  char locks[HUB_PATH_BYTES];
};

/* `make`: folders that are not there are made; else it is for looking only. ERROR_IO says which could not be made. */
int hub_writer_open(const char *root, const char *repository, bool make, struct hub_writer *out, struct error *error) MUST_CHECK;

/* True when the whole file is there. */
bool hub_writer_has(const struct hub_writer *writer, const struct hub_file *file);

/* Where its bytes go while they come, and how many are there. */
int hub_writer_partial(const struct hub_writer *writer, const struct hub_file *file, char out[HUB_PATH_BYTES],
                       struct error *error) MUST_CHECK;
int64_t hub_writer_bytes(const struct hub_writer *writer, const struct hub_file *file);

/* The right to bring a file; -1 in *lock, and 0, when another program has it. Given back with hub_writer_unlock. */
int hub_writer_lock(const struct hub_writer *writer, const struct hub_file *file, int *lock, struct error *error) MUST_CHECK;
void hub_writer_unlock(int lock);

/* The partial file is whole: its size and, where the hash is a SHA-256, its content are compared, and it becomes the blob. ERROR_FORMAT
 * where they differ: the file is gone then, to be fetched anew. */
int hub_writer_finish(const struct hub_writer *writer, const struct hub_file *file, struct error *error) MUST_CHECK;

/* Links the file's path in the snapshot to its blob, whatever stood there. */
int hub_writer_link(const struct hub_writer *writer, const char *commit, const struct hub_file *file,
                    struct error *error) MUST_CHECK;

/* The revision is at the commit; a revision that is the commit needs no note. */
int hub_writer_set(const struct hub_writer *writer, const char *revision, const char *commit, struct error *error) MUST_CHECK;

#endif
