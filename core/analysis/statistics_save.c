/* statistics_save.c: the state of statistics as bytes and back. The bytes are this machine's (little-endian, IEEE) and
 * carry a version; a job resumes on the machine that began it. What comes back is checked like a file: it may be torn. */
#include <stdlib.h>
#include <string.h>

#include "core/analysis/statistics_int.h"

#define VERSION 1u

struct head {
  uint32_t version;
  int32_t n_top, n_quantile, window;
  int32_t positions; /* 1 where BOS is skipped, + 2 positions_print */
  int64_t n_feat, n_tokens, n_documents;
};

/* A tally without its pointer, as it is saved. */
struct saved_tally {
  int64_t n_fired;
  double sum;
  float max;
  int32_t exponent;
  uint64_t bars[STATISTICS_BARS];
  uint8_t n_top, n_interval[STATISTICS_INTERVALS], unused[7];
};

struct saved_kept {
  int64_t document;
  uint64_t key;
  int32_t position, start, length;
  float value;
  int32_t n_marks, unused;
};

struct reader {
  const unsigned char *at, *end;
};

static bool take(struct reader *reader, void *out, size_t bytes) {
  if ((size_t)(reader->end - reader->at) < bytes) return false;
  if (bytes) memcpy(out, reader->at, bytes);
  reader->at += bytes;
  return true;
}

int64_t statistics_parts(const struct statistics *s) {
  return (s->options.n_feat + STATISTICS_PART - 1) / STATISTICS_PART;
}

bool statistics_part_dirty(const struct statistics *s, int64_t part) { return s->dirty[part]; }

static struct head make_head(const struct statistics *s) {
  struct head head;
  memset(&head, 0, sizeof head); /* padding too: equal states are equal bytes */
  head.version = VERSION;
  head.n_top = s->options.n_top;
  head.n_quantile = s->options.n_quantile;
  head.window = s->options.window;
  head.positions = (int32_t)(positions_print(&s->options.positions) << 1 | s->options.positions.skip_first);
  head.n_feat = s->options.n_feat;
  head.n_tokens = s->n_tokens;
  head.n_documents = s->n_documents;
  return head;
}

void statistics_save_head(const struct statistics *s, struct buffer *out) {
  struct head head = make_head(s);
  buffer_append(out, &head, sizeof head);
}

int statistics_load_head(struct statistics *s, const void *data, size_t bytes, struct error *error) {
  struct head head, own = make_head(s);
  if (bytes != sizeof head)
    return error_set(error, ERROR_FORMAT, "the saved statistics have a head of %zu bytes, expected %zu", bytes,
                     sizeof head);
  memcpy(&head, data, sizeof head);
  own.n_tokens = head.n_tokens;
  own.n_documents = head.n_documents;
  if (memcmp(&head, &own, sizeof head) != 0 || head.n_tokens < 0 || head.n_documents < 0)
    return error_set(error, ERROR_FORMAT, "the saved statistics were made with other settings or by another version");
  s->n_tokens = head.n_tokens;
  s->n_documents = head.n_documents;
  return 0;
}

/* ---- parts ---- */

static void save_kept(const struct kept *kept, struct buffer *out) {
  struct saved_kept saved;
  memset(&saved, 0, sizeof saved);
  saved.document = kept->document;
  saved.key = kept->key;
  saved.position = kept->position;
  saved.start = kept->start;
  saved.length = kept->length;
  saved.value = kept->value;
  saved.n_marks = kept->n_marks;
  buffer_append(out, &saved, sizeof saved);
  buffer_append(out, kept->marks, (size_t)kept->n_marks * sizeof *kept->marks);
}

static void save_tally(const struct statistics *s, const struct tally *t, struct buffer *out) {
  struct saved_tally saved;
  memset(&saved, 0, sizeof saved);
  saved.n_fired = t->n_fired;
  saved.sum = t->sum;
  saved.max = t->max;
  saved.exponent = t->exponent;
  memcpy(saved.bars, t->bars, sizeof saved.bars);
  saved.n_top = t->n_top;
  memcpy(saved.n_interval, t->n_interval, sizeof saved.n_interval);
  buffer_append(out, &saved, sizeof saved);
  for (int i = 0; i < t->n_top; i++) save_kept(&t->kept[i], out);
  for (int b = 0; b < STATISTICS_INTERVALS; b++)
    for (int i = 0; i < t->n_interval[b]; i++)
      save_kept(&t->kept[s->options.n_top + b * s->options.n_quantile + i], out);
}

static int64_t part_end(const struct statistics *s, int64_t part) {
  int64_t end = (part + 1) * STATISTICS_PART;
  return end < s->options.n_feat ? end : s->options.n_feat;
}

void statistics_save_part(struct statistics *s, int64_t part, struct buffer *out) {
  for (int64_t f = part * STATISTICS_PART; f < part_end(s, part); f++) save_tally(s, &s->tallies[f], out);
  s->dirty[part] = false;
}

static bool load_kept(const struct statistics *s, struct reader *reader, struct kept *kept) {
  struct saved_kept saved;
  if (!take(reader, &saved, sizeof saved) || saved.n_marks < 0 || saved.n_marks > s->options.window) return false;
  bool placed = saved.document >= 0 && saved.start >= 0 && saved.length >= 1 && saved.length <= s->options.window &&
                saved.position >= saved.start && saved.position - saved.start < saved.length;
  if (!placed || saved.document >= s->n_documents) return false;
  *kept = (struct kept){saved.document, saved.key, saved.position, saved.start, saved.length, saved.value,
                        saved.n_marks, malloc(((size_t)saved.n_marks + 1) * sizeof *kept->marks)};
  if (!kept->marks || !take(reader, kept->marks, (size_t)saved.n_marks * sizeof *kept->marks)) return false;
  for (int32_t i = 0; i < saved.n_marks; i++)
    if (kept->marks[i].offset < 0 || kept->marks[i].offset >= saved.length) return false;
  return true;
}

static bool load_tally(const struct statistics *s, struct reader *reader, struct tally *t) {
  struct saved_tally saved;
  tally_clear(t, s->per_feature);
  if (!take(reader, &saved, sizeof saved) || saved.n_top > s->options.n_top || abs(saved.exponent) > 200) return false;
  t->n_fired = saved.n_fired;
  t->sum = saved.sum;
  t->max = saved.max;
  t->exponent = saved.exponent;
  memcpy(t->bars, saved.bars, sizeof t->bars);
  if (t->n_fired == 0) return true;
  t->kept = calloc((size_t)s->per_feature + 1, sizeof *t->kept);
  if (!t->kept) return false;
  for (int i = 0; i < saved.n_top; i++, t->n_top++)
    if (!load_kept(s, reader, &t->kept[i])) return false;
  for (int b = 0; b < STATISTICS_INTERVALS; b++) {
    if (saved.n_interval[b] > s->options.n_quantile) return false;
    for (int i = 0; i < saved.n_interval[b]; i++, t->n_interval[b]++)
      if (!load_kept(s, reader, &t->kept[s->options.n_top + b * s->options.n_quantile + i])) return false;
  }
  return true;
}

int statistics_load_part(struct statistics *s, int64_t part, const void *data, size_t bytes, struct error *error) {
  struct reader reader = {data, (const unsigned char *)data + bytes};
  for (int64_t f = part * STATISTICS_PART; f < part_end(s, part); f++)
    if (!load_tally(s, &reader, &s->tallies[f]))
      return error_set(error, ERROR_FORMAT, "the saved statistics of feature %lld are damaged", (long long)f);
  s->dirty[part] = false;
  if (reader.at == reader.end) return 0;
  return error_set(error, ERROR_FORMAT, "the saved statistics have %td bytes too many in part %lld",
                   reader.end - reader.at, (long long)part);
}
