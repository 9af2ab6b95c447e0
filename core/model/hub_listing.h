/* hub_listing.h: what a repository on a hub has at a revision, as the hub tells it in JSON
 * (GET /api/models/REPOSITORY/revision/REVISION?blobs=true), and which of it makes a model, a tokenizer or a folder.
 *
 * The text comes from a network: names of files are plain paths below the repository, hashes are hexadecimal, sizes are
 * not negative, or the listing is refused. */
#ifndef STEERD_CORE_MODEL_HUB_LISTING_H
#define STEERD_CORE_MODEL_HUB_LISTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/arena.h"

struct hub_file {
  const char *path; /* below the repository: "tokenizer.json", "blocks.7.hook_resid_pre/cfg.json" */
  const char *hash; /* names its blob: 64 digits of a SHA-256, or 40 of git's SHA-1 */
  int64_t size;     /* bytes */
  bool wanted;
};

struct hub_listing {
  struct arena arena;
  char commit[72];
  struct hub_file *files;
  size_t n;
};

/* ERROR_FORMAT says what is wrong with the text. Cleared with hub_listing_clear, also after -1. */
int hub_listing_read(const char *json, size_t length, struct hub_listing *out, struct error *error) MUST_CHECK;
void hub_listing_clear(struct hub_listing *listing);

/* Each of these marks files as wanted and returns how many it marked.
 *
 * A model: config.json and generation_config.json, the tokenizer, and the first form of weights that is there, in the
 * order in which model_open looks for them (docs/models-found.md). 0 where there is no config.json or no weights. */
size_t hub_choose_model(struct hub_listing *listing);
/* What a tokenizer is made of: tokenizer.json, vocab.json and merges.txt, tokenizer.model, their settings, a chat template. */
size_t hub_choose_tokenizer(struct hub_listing *listing);
/* Everything in a folder and below; "" is all of it. Where `path` is a file: it, and descriptions (JSON, YAML, up to 1 MiB) beside it. */
size_t hub_choose_below(struct hub_listing *listing, const char *path);

/* "it has 'a', 'b' and 3 more": names at the top of the repository. */
void hub_listing_tell(const struct hub_listing *listing, char out[256]);

#endif
