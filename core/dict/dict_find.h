/* dict_find.h: from what a user writes to the files of a dictionary.
 *
 *   /saes/7, described.ini, 7.pt                   what lies there on this machine
 *   gpt2-small-res-jb/blocks.7.hook_resid_pre      a release and an id of it (config/releases.ini), in the Hugging Face cache
 *   gpt2-small/7-res-jb                            a model and a source of Neuronpedia's, there too
 *
 * What exists as a path is a path. Nothing is downloaded. */
#ifndef STEERD_CORE_DICT_DICT_FIND_H
#define STEERD_CORE_DICT_DICT_FIND_H

#include "core/dict/releases.h"
#include "core/model/hub.h"

struct dict_place {
  char path[HUB_PATH_BYTES];  /* what dict_open takes */
  char fence[HUB_PATH_BYTES]; /* of a snapshot: the real path of the cache, which its files may not lead out of; else "" */
};

/* ERROR_NOT_FOUND says which folder was looked at, the nearest name there is, and how to get the dictionary. */
int dict_find(const struct releases *releases, const char *where, struct dict_place *out, struct error *error) MUST_CHECK;

#endif
