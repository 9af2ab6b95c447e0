/* dict_find.h: from what a user writes to the files of a dictionary.
 *
 *   /saes/7, described.ini, 7.pt                   what lies there on this machine
 *   gpt2-small-res-jb/blocks.7.hook_resid_pre      a release and an id of it (config/releases.ini)
 *   gpt2-small/7-res-jb                            a model and a source of Neuronpedia's
 *
 * A name is looked for in folders that somebody gives, as OWNER/NAME/FOLDER or NAME/FOLDER of its repository, then in the
 * Hugging Face cache. What exists as a path is a path. Nothing is downloaded: core/pull.h does. */
#ifndef STEERD_CORE_DICT_DICT_FIND_H
#define STEERD_CORE_DICT_DICT_FIND_H

#include "core/dict/releases.h"
#include "core/model/hub.h"

struct dict_place {
  char path[HUB_PATH_BYTES];  /* what dict_open takes */
  char fence[HUB_PATH_BYTES]; /* of a snapshot: the real path of the cache, which its files may not lead out of; else "" */
};

/* Where names are looked for besides the cache; borrowed. */
struct dict_folders {
  const char *const *list;
  size_t n;
};

/* ERROR_NOT_FOUND says which folder was looked at, the nearest name there is, and how to get the dictionary. */
int dict_find(const struct releases *releases, const char *where, struct dict_folders folders, struct dict_place *out,
              struct error *error) MUST_CHECK;

/* The same for a name alone: no path is tried but those that the table gives. */
int dict_find_name(const struct releases *releases, const char *name, struct dict_folders folders, struct dict_place *out,
                   struct error *error) MUST_CHECK;

#endif
