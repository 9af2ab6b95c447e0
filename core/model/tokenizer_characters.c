/* tokenizer_characters.c: one id a character, as the workshop's town-name model was trained: the vocabulary
 * is what its corpus holds. Case is kept: the corpus decides what there is. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/buffer.h"
#include "core/base/mapfile.h"
#include "core/base/utf8.h"
#include "core/model/tokenizer_private.h"

#define CORPUS_BYTES_MAX ((size_t)1 << 30)
#define POINTS 0x110000 /* Unicode code points */

enum { ID_PAD, ID_SOS, ID_EOS, ID_FIRST };

struct characters {
  uint32_t *points; /* [count] by rising code point; character i has id ID_FIRST + i */
  int32_t count;
};

/* ---- encoding ----------------------------------------------------------------------------------- */

static int32_t character_id(const struct characters *c, uint32_t point) {
  int32_t low = 0, high = c->count;
  while (low < high) {
    int32_t middle = low + (high - low) / 2;
    if (c->points[middle] < point)
      low = middle + 1;
    else
      high = middle;
  }
  return low < c->count && c->points[low] == point ? ID_FIRST + low : -1;
}

/* Whether a message can show the character itself: no control, combining or direction mark, and of a range
 * that most fonts have. */
static bool shows(uint32_t point) {
  return (point > 0x20 && point < 0x7F) || (point > 0xA0 && point < 0x300) ||
         (point >= 0x370 && point < 0x2000) || (point >= 0x2070 && point < 0x3000);
}

static void show_point(struct buffer *out, uint32_t point) {
  char bytes[4];
  if (point == ' ')
    buffer_text(out, "space");
  else if (shows(point))
    buffer_append(out, bytes, (size_t)utf8_put(point, bytes));
  else
    buffer_printf(out, "U+%04X", (unsigned)point);
}

/* "space ' - a-z à â": what the vocabulary has, runs shortened, cut where a message would get too long. */
static void show_vocabulary(struct buffer *out, const struct characters *c) {
  enum { SHOWN = 280 };
  for (int32_t i = 0, last; i < c->count; i = last + 1) {
    for (last = i; last + 1 < c->count && c->points[last + 1] == c->points[last] + 1; last++)
      continue;
    if (last - i < 2)
      last = i;
    if (out->length > SHOWN) {
      buffer_text(out, " ...");
      return;
    }
    if (i > 0)
      buffer_char(out, ' ');
    show_point(out, c->points[i]);
    if (last == i)
      continue;
    buffer_char(out, '-');
    show_point(out, c->points[last]);
  }
}

static int unknown_character(const struct characters *c, uint32_t point, size_t at, struct error *error) {
  struct buffer name, all;
  buffer_init(&name, 0);
  buffer_init(&all, 0);
  show_point(&name, point);
  show_vocabulary(&all, c);
  if (name.failed || all.failed)
    error_memory(error, all.capacity);
  else
    error_set(error, ERROR_ARGUMENT,
              "the character '%s' (U+%04X) at byte %zu is not in the vocabulary; it has: %s", name.data,
              (unsigned)point, at, all.data);
  buffer_clear(&name);
  buffer_clear(&all);
  return -1;
}

static int characters_encode(const void *state, const struct text_part *part, struct id_list *ids,
                             struct error *error) {
  const struct characters *c = state;
  uint32_t point = 0;
  for (size_t at = 0; at < part->length;) {
    int n = utf8_next(part->text + at, part->length - at, &point);
    int32_t id = n > 0 ? character_id(c, point) : -1;
    if (id < 0)
      return unknown_character(c, point, part->offset + at, error);
    if (id_list_push(ids, id, error) != 0)
      return -1;
    at += (size_t)n;
  }
  return 0;
}

static void characters_free(void *state) {
  struct characters *c = state;
  if (!c)
    return;
  free(c->points);
  free(c);
}

static const char *characters_title(const void *state) {
  (void)state;
  return "characters of a text file";
}

static const struct tokenizer_kind characters_kind = {characters_encode, characters_free, characters_title};

/* ---- reading ------------------------------------------------------------------------------------ */

/* Names end at a comma or a line end, of either fashion. */
static bool separates(uint32_t point) { return point == '\n' || point == '\r' || point == ','; }

/* Marks the code points of the corpus in seen[POINTS]; how many there are, or -1. */
static int32_t mark_points(const struct mapfile *file, unsigned char *seen, struct error *error) {
  const char *text = (const char *)file->data;
  int32_t count = 0;
  uint32_t point = 0;
  for (size_t at = 0; at < file->size;) {
    int n = utf8_next(text + at, file->size - at, &point);
    if (n <= 0)
      return error_set(error, ERROR_FORMAT, "not valid UTF-8 at byte %zu", at);
    at += (size_t)n;
    if (seen[point] || separates(point))
      continue;
    seen[point] = 1;
    count++;
  }
  return count > 0 ? count : error_set(error, ERROR_FORMAT, "it holds no character");
}

static struct characters *characters_new(const unsigned char *seen, int32_t count, struct error *error) {
  struct characters *c = calloc(1, sizeof *c);
  if (!c)
    return error_memory(error, sizeof *c), NULL;
  c->points = malloc((size_t)count * sizeof *c->points);
  if (!c->points) {
    characters_free(c);
    return error_memory(error, (size_t)count * sizeof *c->points), NULL;
  }
  for (uint32_t point = 0; point < POINTS; point++)
    if (seen[point])
      c->points[c->count++] = point;
  return c;
}

static struct characters *characters_read(const char *path, struct error *error) {
  struct mapfile file = {0};
  struct characters *c = NULL;
  unsigned char *seen = NULL;
  if (mapfile_open(path, &file, error) != 0)
    return NULL;
  if (file.size > CORPUS_BYTES_MAX) {
    error_set(error, ERROR_LIMIT, "'%s' has %zu bytes, at most %zu are read", path, file.size,
              CORPUS_BYTES_MAX);
    goto out;
  }
  seen = calloc(POINTS, 1);
  if (!seen) {
    error_memory(error, POINTS);
    goto out;
  }
  int32_t count = mark_points(&file, seen, error);
  if (count < 0)
    error_prefix(error, "'%s'", path);
  else
    c = characters_new(seen, count, error);
out:
  free(seen);
  mapfile_close(&file);
  return c;
}

static int fill_pieces(struct tokenizer *t, const struct characters *c, struct error *error) {
  static const char *const names[] = {[ID_PAD] = "<PAD>", [ID_SOS] = "<SOS>", [ID_EOS] = "<EOS>"};
  for (int32_t id = 0; id < ID_FIRST; id++) {
    if (pieces_set(&t->pieces, id, names[id], strlen(names[id]), error) != 0)
      return -1;
    if (tokenizer_mark_special(t, id, names[id], strlen(names[id]), error) != 0)
      return -1;
  }
  char bytes[4];
  for (int32_t i = 0; i < c->count; i++) {
    size_t length = (size_t)utf8_put(c->points[i], bytes);
    if (pieces_set(&t->pieces, ID_FIRST + i, bytes, length, error) != 0)
      return -1;
  }
  return 0;
}

struct tokenizer *tokenizer_open_characters(const char *text_path, struct error *error) {
  struct characters *c = characters_read(text_path, error);
  if (!c)
    return NULL;
  struct tokenizer *t = tokenizer_new(ID_FIRST + c->count, error);
  if (!t) {
    characters_free(c);
    return NULL;
  }
  t->kind = &characters_kind;
  t->state = c;
  t->bos = ID_SOS;
  t->eos = ID_EOS;
  t->pad = ID_PAD;
  t->prepends_bos = true;
  if (fill_pieces(t, c, error) == 0 && tokenizer_finish(t, error) == 0)
    return t;
  tokenizer_free(t);
  return NULL;
}
