/* hub.h: the cache of the Hugging Face tools on this machine, read where it lies.
 *
 *   ROOT/models--ORG--NAME/refs/BRANCH            a text: the commit that the branch was at
 *                         /snapshots/COMMIT/...   files, as links to ../../blobs/HASH
 *
 * ROOT is HF_HUB_CACHE, else HF_HOME/hub, else XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub: the first
 * that is set. hub_write.h writes it. */
#ifndef STEERD_CORE_MODEL_HUB_H
#define STEERD_CORE_MODEL_HUB_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/error.h"

#define HUB_PATH_BYTES 4096

/* Where the cache is or would be. ERROR_NOT_FOUND when the environment has none of the variables, nor HOME. */
int hub_root(char out[HUB_PATH_BYTES], struct error *error) MUST_CHECK;

/* True when name[0..length) can be a repository: "ORG/NAME" or "NAME" of letters, digits, '.', '_' and '-', at most
 * 96 bytes, as Hugging Face has them. */
bool hub_is_repository(const char *name, size_t length);

/* True when text can be a branch, a tag or a commit: parts like those of names, with slashes between ("refs/pr/3"), at most 255 bytes. */
bool hub_is_revision(const char *text);

/* ROOT/models--ORG--NAME of a repository, whether it is there or not. ERROR_ARGUMENT for what is no repository. */
int hub_folder(const char *root, const char *repository, char out[HUB_PATH_BYTES], struct error *error) MUST_CHECK;

/* True when the cache has a folder of the repository, whatever is in it. */
bool hub_has(const char *root, const char *repository);

/* The snapshot folder of a repository at a branch, tag or commit (NULL: the branch main) below `root`.
 * ERROR_NOT_FOUND says what is missing: the repository, the revision or the snapshot; ERROR_FORMAT: a ref that holds
 * no commit. */
int hub_snapshot(const char *root, const char *repository, const char *revision, char out[HUB_PATH_BYTES],
                 struct error *error) MUST_CHECK;

/* For an error about `word`, what the cache has instead: "the nearest there is 'ORG/NAME'" (names are compared with or
 * without the organisation, as in `word`), else "it has 'A', 'B' and 3 more", "it is empty" or "there is no such folder". */
void hub_tell(const char *root, const char *word, char out[256]);

#endif
