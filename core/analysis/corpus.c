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
#include "core/base/utf8.h"

/* A text is tokenised in pieces of this many bytes up to twice as many, so that neither memory nor the wait for a stop grows with
 * it. Pieces are cut where the cut changes no token (is_cut). */
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

/* More of what the last document belongs to: documents begin wherever `room` tokens are through. */
static int add_tokens(struct corpus *corpus, const int32_t *ids, size_t n, size_t *in_document, struct error *error) {
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

/* ---- cutting the text ---- */

static bool is_white(uint32_t point) {
  return point == ' ' || (point >= '\t' && point <= '\r') || point == 0x85 || point == 0xA0 || point == 0x1680 ||
         (point >= 0x2000 && point <= 0x200A) || point == 0x2028 || point == 0x2029 || point == 0x202F || point == 0x205F ||
         point == 0x3000;
}

static bool is_continuation(char c) { return (c & 0xC0) == 0x80; }

static uint32_t point_at(const char *text, size_t at, size_t end) {
  uint32_t point;
  return utf8_next(text + at, end - at, &point) > 0 ? point : 0;
}

static uint32_t point_before(const char *text, size_t at) {
  size_t begin = at - 1;
  while (begin > 0 && at - begin < 4 && is_continuation(text[begin])) begin--;
  return point_at(text, begin, at);
}

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* Places between which no token reaches, the surest first: behind a newline with a word on either side, where every
 * pre-tokenizer's pattern ends a stretch; before a blank between two words, where one begins; before the last newline of
 * several, where GPT-2's pattern cuts. */
enum cut { CUT_LINE, CUT_WORD, CUT_NEWLINE, CUT_KINDS };

static bool is_cut(enum cut cut, const char *text, size_t at, size_t length) {
  switch (cut) {
    case CUT_LINE:
      return text[at - 1] == '\n' && !is_white(point_before(text, at - 1)) && !is_white(point_at(text, at, length));
    case CUT_WORD: return text[at] == ' ' && is_letter(text[at - 1]) && is_letter(text[at + 1]);
    default: return text[at] == '\n' && !is_white(point_at(text, at + 1, length));
  }
}

/* Where nothing of the kind is in reach a character's end must do: one token may then be cut, at the same place every time. */
static size_t piece_end(const char *text, size_t at, size_t length) {
  if (length - at <= 2 * PIECE_BYTES) return length;
  size_t first = at + PIECE_BYTES, end = at + 2 * PIECE_BYTES;
  for (int cut = 0; cut < CUT_KINDS; cut++)
    for (size_t i = first; i < end; i++)
      if (is_cut((enum cut)cut, text, i, length)) return i;
  while (first < end && is_continuation(text[first])) first++;
  return first;
}

/* text[at..end), which begins in line `line`. */
static int read_piece(struct corpus *corpus, const struct tokenizer *tokenizer, const char *text, size_t length,
                      size_t line, size_t *in_document, struct error *error) {
  size_t n = 0;
  int32_t *ids = NULL;
  if (is_stopped(corpus, error)) return -1;
  if (tokenizer_encode(tokenizer, text, length, 0, &ids, &n, error) != 0) return error_prefix(error, "line %zu", line);
  int failed = add_tokens(corpus, ids, n, in_document, error);
  free(ids);
  return failed;
}

/* At least one document, more when it is longer than the context. */
static int read_line(struct corpus *corpus, const struct tokenizer *tokenizer, const char *text, size_t length, size_t line,
                     struct error *error) {
  size_t in_document = 0, at = 0;
  if (begin_document(corpus, error) != 0) return -1;
  while (at < length && (at == 0 || !is_full(corpus))) {
    size_t end = piece_end(text, at, length);
    if (read_piece(corpus, tokenizer, text + at, end - at, line, &in_document, error) != 0) return -1;
    at = end;
  }
  return 0;
}

static int read_lines(struct corpus *corpus, const struct tokenizer *tokenizer, const char *text, size_t length,
                      struct error *error) {
  size_t at = 0, line = 1;
  for (;; line++) {
    const char *newline = at < length ? memchr(text + at, '\n', length - at) : NULL;
    size_t end = newline ? (size_t)(newline - text) : length;
    if (read_line(corpus, tokenizer, text + at, end - at, line, error) != 0) return -1;
    if (!newline || is_full(corpus)) return 0;
    at = end + 1;
  }
}

static int read_stream(struct corpus *corpus, const struct tokenizer *tokenizer, const char *text, size_t length,
                       struct error *error) {
  size_t line = 1, in_document = 0;
  for (size_t at = 0; at < length && !is_full(corpus);) {
    size_t end = piece_end(text, at, length);
    if (read_piece(corpus, tokenizer, text + at, end - at, line, &in_document, error) != 0) return -1;
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
