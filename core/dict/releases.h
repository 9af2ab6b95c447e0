/* releases.h: names of published dictionaries (config/releases.ini): RELEASE/ID as SAELens has them, MODEL/SOURCE as
 * Neuronpedia has them, and the repository and folder each stands for. */
#ifndef STEERD_CORE_DICT_RELEASES_H
#define STEERD_CORE_DICT_RELEASES_H

#include <stddef.h>

#include "core/base/error.h"

struct releases;

/* Reads the table. path NULL or "": an empty one. NULL with ERROR_NOT_FOUND / ERROR_FORMAT naming file and line. */
struct releases *releases_open(const char *path, struct error *error) MUST_CHECK;
void releases_close(struct releases *releases); /* NULL is fine */

#define RELEASE_TEXT_BYTES 256
struct release_place {
  char release[RELEASE_TEXT_BYTES], model[RELEASE_TEXT_BYTES];
  char repository[RELEASE_TEXT_BYTES]; /* OWNER/NAME */
  char folder[RELEASE_TEXT_BYTES];     /* below it; or a file */
};

/* "gpt2-small-res-jb/blocks.7.hook_resid_pre" or "gpt2-small/7-res-jb". A release answers to the folders of its repository
 * too ("gemma-scope-2b-pt-res/layer_3/width_16k/average_l0_59"). ERROR_NOT_FOUND with the nearest name. */
int releases_find(const struct releases *releases, const char *name, struct release_place *out,
                  struct error *error) MUST_CHECK;

/* Calls `each` for every dictionary of the table, numbers spelled out; neuronpedia is "" where there is none. Ends early with
 * what is not 0. */
int releases_each(const struct releases *releases,
                  int (*each)(void *context, const struct release_place *place, const char *id, const char *neuronpedia),
                  void *context);

#endif
