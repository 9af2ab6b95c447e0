/* corpus.c: reads a text piece by piece, tokenises, and spools ids and document boundaries. Knows no model but its
 * tokenizer. */
#include "core/analysis/corpus.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/base/mapfile.h"

/* The stream is tokenised in pieces of about this many bytes, cut where the cut changes no token: between a newline
 * and what follows it when both neighbours of the newline are no white space (GPT-2's pattern then ends a token there). */
#define PIECE_BYTES ((size_t)1 << 20)

/* A growing, unlinked, mapped file. */
struct spool {
  FILE *file;
  void *data;
  size_t bytes;
};

struct corpus {
  struct corpus_options options;
  int32_t bos;
  struct spool ids, starts; /* int32 ids; int64 first id of each document, then the end */
  int64_t n_documents, n_tokens;
  uint64_t hash;
  char identity[17];
};

/* ---- spools ---- */

static int spool_open(struct spool *spool, struct error *error) {
  spool->file = tmpfile();
  if (spool->file) return 0;
  return error_set(error, ERROR_IO, "no temporary file could be made: %s", strerror(errno));
}

static int spool_write(struct spool *spool, const void *data, size_t bytes, struct error *error) {
  spool->bytes += bytes;
  if (bytes == 0 || fwrite(data, 1, bytes, spool->file) == bytes) return 0;
  return error_set(error, ERROR_IO, "the temporary file could not grow: %s", strerror(errno));
}

static int spool_map(struct spool *spool, struct error *error) {
  if (fflush(spool->file) != 0) return error_set(error, ERROR_IO, "the temporary file: %s", strerror(errno));
  if (spool->bytes == 0) return 0;
  spool->data = mmap(NULL, spool->bytes, PROT_READ, MAP_PRIVATE, fileno(spool->file), 0);
  if (spool->data != MAP_FAILED) return 0;
  spool->data = NULL;
  return error_set(error, ERROR_IO, "the temporary file could not be mapped: %s", strerror(errno));
}

static void spool_close(struct spool *spool) {
  if (spool->data) munmap(spool->data, spool->bytes);
  if (spool->file) fclose(spool->file);
}

/* ---- documents ---- */

/* FNV-1a over the ids and the boundaries: cheap, and only meant to notice another text. */
static void hash_bytes(struct corpus *corpus, const void *data, size_t bytes) {
  const unsigned char *p = data;
  for (size_t i = 0; i < bytes; i++) corpus->hash = (corpus->hash ^ p[i]) * 0x100000001B3u;
}

static int begin_document(struct corpus *corpus, struct error *error) {
  int64_t start = corpus->n_tokens;
  corpus->n_documents++;
  hash_bytes(corpus, "|", 1);
  return spool_write(&corpus->starts, &start, sizeof start, error);
}

static int add_ids(struct corpus *corpus, const int32_t *ids, size_t n, struct error *error) {
  corpus->n_tokens += (int64_t)n;
  hash_bytes(corpus, ids, n * sizeof *ids);
  return spool_write(&corpus->ids, ids, n * sizeof *ids, error);
}

static size_t room(const struct corpus *corpus) {
  return (size_t)(corpus->options.context - (corpus->options.bos ? 1 : 0));
}

static bool is_full(const struct corpus *corpus) {
  return corpus->options.max_tokens > 0 && corpus->n_tokens >= corpus->options.max_tokens;
}

static bool is_stopped(const struct corpus *corpus, struct error *error) {
  if (!corpus->options.stop || !corpus->options.stop(corpus->options.stop_context)) return false;
  error_set(error, ERROR_CANCELLED, "stopped while the text was read");
  return true;
}

/* A line: at least one document, more when it is longer than the context. */
static int add_line(struct corpus *corpus, const int32_t *ids, size_t n, struct error *error) {
  size_t at = 0;
  do {
    size_t take = n - at < room(corpus) ? n - at : room(corpus);
    if (begin_document(corpus, error) != 0 || add_ids(corpus, ids + at, take, error) != 0) return -1;
    at += take;
  } while (at < n && !is_full(corpus));
  return 0;
}

/* ---- cutting the text ---- */

static int encode(const struct tokenizer *tokenizer, const char *text, size_t length, size_t line, int32_t **ids,
                  size_t *n, struct error *error) {
  if (tokenizer_encode(tokenizer, text, length, 0, ids, n, error) == 0) return 0;
  return error_prefix(error, "line %zu", line);
}

static int read_lines(struct corpus *corpus, const struct tokenizer *tokenizer, const char *text, size_t length,
                      struct error *error) {
  size_t at = 0, line = 1;
  for (;; line++) {
    const char *newline = at < length ? memchr(text + at, '\n', length - at) : NULL;
    size_t end = newline ? (size_t)(newline - text) : length, n = 0;
    int32_t *ids = NULL;
    if (line % 1024 == 0 && is_stopped(corpus, error)) return -1;
    int failed = encode(tokenizer, text + at, end - at, line, &ids, &n, error);
    if (!failed) failed = add_line(corpus, ids, n, error);
    free(ids);
    if (failed) return -1;
    if (!newline || is_full(corpus)) return 0;
    at = end + 1;
  }
}

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* Non-ASCII neighbours could be white space too: only cuts between ASCII characters are safe to judge here. */
static bool is_cut(const char *text, size_t at) {
  return text[at - 1] == '\n' && !is_space(text[at - 2]) && !is_space(text[at]) && !(text[at - 2] & 0x80) &&
         !(text[at] & 0x80);
}

static size_t piece_end(const char *text, size_t at, size_t length) {
  if (length - at <= PIECE_BYTES) return length;
  for (size_t end = at + PIECE_BYTES; end < length; end++)
    if (is_cut(text, end)) return end;
  return length;
}

/* One stream: documents begin wherever `room` tokens are through. */
static int add_stream(struct corpus *corpus, const int32_t *ids, size_t n, size_t *in_document, struct error *error) {
  for (size_t at = 0; at < n;) {
    if (*in_document == room(corpus) || corpus->n_documents == 0) {
      if (is_full(corpus)) return 0;
      if (begin_document(corpus, error) != 0) return -1;
      *in_document = 0;
    }
    size_t left = room(corpus) - *in_document, take = n - at < left ? n - at : left;
    if (add_ids(corpus, ids + at, take, error) != 0) return -1;
    *in_document += take;
    at += take;
  }
  return 0;
}

static int read_stream(struct corpus *corpus, const struct tokenizer *tokenizer, const char *text, size_t length,
                       struct error *error) {
  size_t line = 1, in_document = 0;
  for (size_t at = 0; at < length && !is_full(corpus);) {
    size_t end = piece_end(text, at, length), n = 0;
    int32_t *ids = NULL;
    if (is_stopped(corpus, error)) return -1;
    int failed = encode(tokenizer, text + at, end - at, line, &ids, &n, error);
    if (!failed) failed = add_stream(corpus, ids, n, &in_document, error);
    free(ids);
    if (failed) return -1;
    for (; at < end; at++) line += text[at] == '\n';
  }
  return 0;
}

/* ---- opening ---- */

static int fill(struct corpus *corpus, const char *path, const struct tokenizer *tokenizer, struct error *error) {
  struct mapfile file;
  if (mapfile_open(path, &file, error) != 0) return -1;
  const char *text = file.data ? (const char *)file.data : "";
  int failed = spool_open(&corpus->ids, error) != 0 || spool_open(&corpus->starts, error) != 0;
  if (!failed)
    failed = corpus->options.lines ? read_lines(corpus, tokenizer, text, file.size, error)
                                   : read_stream(corpus, tokenizer, text, file.size, error);
  mapfile_close(&file);
  if (failed) return error_prefix(error, "'%s'", path);
  return spool_write(&corpus->starts, &corpus->n_tokens, sizeof corpus->n_tokens, error) != 0 ||
                 spool_map(&corpus->ids, error) != 0 || spool_map(&corpus->starts, error) != 0
             ? -1
             : 0;
}

struct corpus *corpus_open(const char *path, const struct tokenizer *tokenizer, const struct corpus_options *options,
                           struct error *error) {
  struct corpus *corpus = calloc(1, sizeof *corpus);
  if (!corpus) return error_memory(error, sizeof *corpus), NULL;
  corpus->options = *options;
  corpus->bos = options->bos ? tokenizer_bos(tokenizer) : -1;
  corpus->options.bos = corpus->bos >= 0;
  if (options->context < (corpus->options.bos ? 2 : 1)) {
    free(corpus);
    error_set(error, ERROR_ARGUMENT, "a context of %lld tokens has no room for text", (long long)options->context);
    return NULL;
  }
  corpus->hash = 0xCBF29CE484222325u;
  if (fill(corpus, path, tokenizer, error) != 0) {
    corpus_close(corpus);
    return NULL;
  }
  snprintf(corpus->identity, sizeof corpus->identity, "%016llx", (unsigned long long)corpus->hash);
  return corpus;
}

void corpus_close(struct corpus *corpus) {
  if (!corpus) return;
  spool_close(&corpus->ids);
  spool_close(&corpus->starts);
  free(corpus);
}

int64_t corpus_documents(const struct corpus *corpus) { return corpus->n_documents; }
int64_t corpus_tokens(const struct corpus *corpus) { return corpus->n_tokens; }
const char *corpus_identity(const struct corpus *corpus) { return corpus->identity; }

int32_t corpus_length(const struct corpus *corpus, int64_t document) {
  const int64_t *starts = corpus->starts.data;
  return (int32_t)(starts[document + 1] - starts[document]) + (corpus->options.bos ? 1 : 0);
}

void corpus_ids(const struct corpus *corpus, int64_t document, int32_t *ids) {
  const int64_t *starts = corpus->starts.data;
  const int32_t *all = corpus->ids.data;
  size_t n = (size_t)(starts[document + 1] - starts[document]);
  if (corpus->options.bos) *ids++ = corpus->bos;
  if (n) memcpy(ids, all + starts[document], n * sizeof *ids);
}
