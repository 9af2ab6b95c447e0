/* model_find.h: from what a user writes to the files of a model.
 *
 *   /models/gpt2, gpt2.ini, stories.bin, run/model.pth    what lies there on this machine
 *   gpt2                                    a name of the table: a repository in the Hugging Face cache
 *   EleutherAI/pythia-70m                   a repository in the cache, known to the table or not
 *   EleutherAI/pythia-70m@step3000          at a branch, tag or commit
 *   gpt2?process                            any of these with its weights processed (core/model/process.h)
 *   gpt2?q8, gpt2?process+bf16              or kept in another type than the file's: f32, f16, bf16, q8 (core/model/model.h)
 *
 * What exists as a path is a path. Nothing is downloaded: core/pull.h does. */
#ifndef STEERD_CORE_MODEL_MODEL_FIND_H
#define STEERD_CORE_MODEL_MODEL_FIND_H

#include "core/model/hub.h"
#include "core/model/model.h"
#include "core/model/model_names.h"

struct model_place {
  char path[HUB_PATH_BYTES];  /* what model_open takes */
  char id[132];               /* what the model is called when nobody names it */
  char fence[HUB_PATH_BYTES]; /* of a snapshot: the real path of the cache, which its files may not lead out of;
                               * else "" */
  struct model_wish wish;     /* what stood behind "?" */
};

/* ERROR_NOT_FOUND says which folder was looked at, the nearest name that is there, and how to get the model. */
int model_find(const struct model_names *names, const char *where, struct model_place *out,
               struct error *error) MUST_CHECK;

/* model_open behind the place's fence. id NULL: place->id. */
struct model *model_open_place(const char *id, const struct model_place *place, struct backend *backend,
                               struct error *error) MUST_CHECK;

#endif
