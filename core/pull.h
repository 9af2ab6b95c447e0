/* pull.h: brings a model or a dictionary from a hub (Hugging Face, or what speaks like it) into the cache where names are looked for, and
 * what Neuronpedia has published of a dictionary's features into a folder that an import reads.
 *
 * The one part of steerd that goes out to a network, and only for who runs the verb: no request to a daemon leads here.
 *
 * Environment, as the Hugging Face tools read it: HF_ENDPOINT (https://huggingface.co), HF_TOKEN, else the file HF_TOKEN_PATH, else
 * HF_HOME/token, else ~/.cache/huggingface/token; HF_HUB_OFFLINE=1 forbids it; hub.h has the cache's. NEURONPEDIA_DATASETS
 * (https://neuronpedia-datasets.s3.us-east-1.amazonaws.com) is where the latter comes from; it gets no token. */
#ifndef STEERD_CORE_PULL_H
#define STEERD_CORE_PULL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

/* Bytes on their way. */
struct pull_progress {
  const char *file;         /* that comes now; "" while another program brings it */
  int64_t done, total;      /* bytes of all files that are wanted, those included that were there */
  double rate;              /* bytes a second since the beginning */
  double seconds_left;      /* -1: not known */
};

struct pull_options {
  /* gpt2, ORG/NAME, either with @REVISION: a model. RELEASE/ID, MODEL/SOURCE: a dictionary. ORG/NAME/PATH: a folder or file. */
  const char *place;
  const char *models, *releases; /* paths of the tables of names; NULL for none */
  bool list_only;                /* nothing is fetched or written */
  void (*list)(void *context, const char *path, int64_t bytes, bool is_there); /* of every wanted file, first; may be NULL */
  bool (*tell)(void *context, const struct pull_progress *progress);           /* a few times a second; true: stop. May be NULL */
  void *context;
};

enum pull_kind { PULL_MODEL, PULL_DICTIONARY, PULL_FOLDER, PULL_PUBLISHED };

struct pull_report {
  enum pull_kind kind;
  char repository[256], commit[72];
  char model[256];          /* of a dictionary: the model it is of, as the table calls it */
  char path[4096];          /* of the snapshot, or of the folder or file in it */
  size_t files;             /* wanted */
  int64_t bytes, fetched;   /* of all wanted files; of those that came now */
};

/* ERROR_NOT_FOUND, ERROR_ARGUMENT: no such name, repository, revision or folder, with what there is; ERROR_IO: the network or the
 * disk, with what to do; ERROR_CANCELLED: `tell` wished it. What has come stays, and the same call goes on from there. */
int pull(const struct pull_options *options, struct pull_report *out, struct error *error) MUST_CHECK;

/* What is published of a dictionary's features, as Neuronpedia's batches (docs/store.md): its explanations, and with `statistics` its features
 * and their examples too, with the descriptions of source and model beside them. `place` is MODEL/SOURCE as Neuronpedia has it, or
 * RELEASE/ID of the table. They come to XDG_CACHE_HOME/steerd/published/MODEL/SOURCE (or below ~/.cache), the report's `path`, for
 * archive_import; `repository` is MODEL/SOURCE, `commit` and `model` are empty. Batches that were published before and no longer are go
 * away. Errors as pull's. */
int pull_published(const struct pull_options *options, bool statistics, struct pull_report *out, struct error *error) MUST_CHECK;

#endif
