/* model_tokenizer.c: finds the tokenizer of a model's folder, which may lie in a repository of its own. Knows the cache's
 * door, nothing of what tokenizers hold. */
#include "core/model/model_tokenizer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mapfile.h"
#include "core/model/hub.h"

/* The snapshot of the repository, and the real path of the cache, which its files may not lead out of. */
static int find_repository(const char *folder, const char *name, char snapshot[HUB_PATH_BYTES], char real[HUB_PATH_BYTES],
                           struct error *error) {
  char root[HUB_PATH_BYTES];
  struct error inner = ERROR_INIT;
  if (hub_root(root, error) != 0) return -1;
  if (hub_snapshot(root, name, NULL, snapshot, &inner) != 0)
    return error_set(error, inner.code, "'%.150s' has no tokenizer but names '%.96s' (tokenizer_name in config.json): %.120s; where there is "
                     "a network: steerd pull %.96s", folder, name, inner.text, name);
  return realpath(root, real) ? 0 : error_set(error, ERROR_IO, "'%s': %s", root, strerror(errno));
}

struct tokenizer *model_tokenizer_open(const char *folder, const struct json_node *config, struct error *error) {
  char snapshot[HUB_PATH_BYTES], real[HUB_PATH_BYTES];
  const char *name = json_text(json_get(config, "tokenizer_name"), NULL), *fence[] = {real};
  if (!name || tokenizer_folder_has(folder)) return tokenizer_open_folder(folder, error);
  if (find_repository(folder, name, snapshot, real, error) != 0) return NULL;
  bool open = !mapfile_is_fenced(); /* else whoever set the fence knows better */
  if (open) mapfile_fence(fence, 1);
  struct tokenizer *tokenizer = tokenizer_open_folder(snapshot, error);
  if (open) mapfile_fence(NULL, 0);
  return tokenizer;
}
