/* bucket_listing.c: reads S3's pages. Knows no network and no file. */
#include "core/pull/bucket_listing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/number.h"

#define NAMES_MAX 100000
#define KEY_BYTES 1100 /* S3's keys have 1,024 at most */
#define TAG_BYTES 71

/* ---- XML, as much as there is of it ---- */

struct span {
  const char *at, *end;
};

/* The text of the first <name> in `from`, which goes on behind it; false where there is none. */
static bool take_element(struct span *from, const char *name, struct span *out) {
  char open[40], close[40];
  size_t n = (size_t)snprintf(open, sizeof open, "<%s>", name), m = (size_t)snprintf(close, sizeof close, "</%s>", name);
  const char *begin = memmem(from->at, (size_t)(from->end - from->at), open, n);
  const char *end = begin ? memmem(begin + n, (size_t)(from->end - begin) - n, close, m) : NULL;
  if (!end) return false;
  *out = (struct span){begin + n, end};
  from->at = end + m;
  return true;
}

/* The first <name> of an element that is looked at again for others. */
static bool find_element(struct span in, const char *name, struct span *out) { return take_element(&in, name, out); }

/* "amp;..." to its character and how long it was; 0 for what is not one of XML's own five. */
static size_t read_entity(struct span text, char *out) {
  static const struct {
    const char *name;
    char character;
  } entities[] = {{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}};
  for (size_t i = 0; i < sizeof entities / sizeof *entities; i++) {
    size_t n = strlen(entities[i].name);
    if ((size_t)(text.end - text.at) < n || memcmp(text.at, entities[i].name, n) != 0) continue;
    *out = entities[i].character;
    return n;
  }
  return 0;
}

/* Plain text of an element; false where it is too long or has control characters, elements or other entities in it. */
static bool read_text(struct span text, char *out, size_t size) {
  size_t used = 0;
  while (text.at < text.end) {
    char c = *text.at;
    size_t n = c == '&' ? read_entity(text, &c) : 1;
    if (n == 0 || (unsigned char)c < ' ' || (n == 1 && c == '<') || used + 1 >= size) return false;
    out[used++] = c;
    text.at += n;
  }
  out[used] = '\0';
  return true;
}

/* ---- a page ---- */

/* Without its quotes; "" for what is no tag. */
static void read_tag(struct span entry, char out[TAG_BYTES]) {
  static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-";
  struct span text;
  char quoted[TAG_BYTES + 2];
  out[0] = '\0';
  if (!find_element(entry, "ETag", &text) || !read_text(text, quoted, sizeof quoted)) return;
  size_t length = strlen(quoted);
  if (length < 2 || quoted[0] != '"' || quoted[length - 1] != '"') return;
  quoted[length - 1] = '\0';
  if (strspn(quoted + 1, plain) == length - 2 && length - 2 < TAG_BYTES) memcpy(out, quoted + 1, length - 1);
}

/* The rest of a key below the prefix; NULL for another. */
static const char *below(const char *key, const char *prefix) {
  size_t n = strlen(prefix);
  return strncmp(key, prefix, n) == 0 && key[n] ? key + n : NULL;
}

static int add_file(struct bucket_listing *l, struct span entry, const char *prefix, struct error *error) {
  struct span text;
  char key[KEY_BYTES], number[24], tag[TAG_BYTES];
  int64_t size;
  if (!find_element(entry, "Key", &text) || !read_text(text, key, sizeof key) || !below(key, prefix)) return 0;
  if (!find_element(entry, "Size", &text) || !read_text(text, number, sizeof number) || !number_parse_int(number, &size) || size < 0)
    return error_set(error, ERROR_FORMAT, "the listing says no size of '%.200s'", key);
  read_tag(entry, tag);
  const char *path = below(key, prefix);
  struct bucket_file file = {.path = arena_text(&l->arena, path, strlen(path), error), .size = size};
  if (file.path) file.tag = arena_text(&l->arena, tag, strlen(tag), error);
  if (!file.tag) return -1;
  l->files[l->n++] = file;
  return 0;
}

static int add_folder(struct bucket_listing *l, struct span entry, const char *prefix, struct error *error) {
  struct span text;
  char key[KEY_BYTES];
  if (!find_element(entry, "Prefix", &text) || !read_text(text, key, sizeof key) || !below(key, prefix)) return 0;
  const char *path = below(key, prefix);
  const char *kept = arena_text(&l->arena, path, strlen(path) - (path[strlen(path) - 1] == '/'), error);
  if (!kept) return -1;
  l->folders[l->n_folders++] = kept;
  return 0;
}

static size_t count_elements(struct span from, const char *name) {
  struct span entry;
  size_t n = 0;
  while (take_element(&from, name, &entry)) n++;
  return n;
}

/* `items` with room for what a page adds, whatever it turns out to be worth; NULL: they stay as they were. */
static void *grow(void *items, size_t n, size_t more, size_t size, struct error *error) {
  if (n + more > NAMES_MAX) {
    (void)error_set(error, ERROR_LIMIT, "the listing has more than %d names", NAMES_MAX);
    return NULL;
  }
  void *grown = realloc(items, (n + more + 1) * size);
  if (!grown) (void)error_memory(error, (n + more + 1) * size);
  return grown;
}

static int make_room(struct bucket_listing *l, struct span page, struct error *error) {
  void *files = grow(l->files, l->n, count_elements(page, "Contents"), sizeof *l->files, error);
  if (!files) return -1;
  l->files = files;
  void *folders = grow(l->folders, l->n_folders, count_elements(page, "CommonPrefixes"), sizeof *l->folders, error);
  if (!folders) return -1;
  l->folders = folders;
  return 0;
}

static int add_each(struct bucket_listing *l, struct span page, const char *name, const char *prefix,
                    int (*add)(struct bucket_listing *, struct span, const char *, struct error *), struct error *error) {
  struct span entry;
  int failed = 0;
  while (!failed && take_element(&page, name, &entry)) failed = add(l, entry, prefix, error);
  return failed;
}

/* More is to come: with which words to ask for it. */
static int read_next(struct bucket_listing *l, struct span page, struct error *error) {
  struct span text;
  char truncated[8] = "false";
  l->next[0] = '\0';
  if (!find_element(page, "IsTruncated", &text) || !read_text(text, truncated, sizeof truncated) || strcmp(truncated, "true") != 0) return 0;
  if (find_element(page, "NextContinuationToken", &text) && read_text(text, l->next, sizeof l->next) && l->next[0]) return 0;
  return error_set(error, ERROR_FORMAT, "the listing is said to go on, and not how");
}

/* From behind the root's own tag, which has attributes, to its end. */
static bool find_page(const char *xml, size_t length, struct span *out) {
  static const char root[] = "<ListBucketResult", end[] = "</ListBucketResult>";
  const char *begin = memmem(xml, length, root, sizeof root - 1);
  const char *inside = begin ? memchr(begin, '>', length - (size_t)(begin - xml)) : NULL;
  const char *last = inside ? memmem(inside, length - (size_t)(inside - xml), end, sizeof end - 1) : NULL;
  if (!last) return false;
  *out = (struct span){inside + 1, last};
  return true;
}

int bucket_listing_add(struct bucket_listing *l, const char *xml, size_t length, const char *prefix, struct error *error) {
  struct span page;
  if (!find_page(xml, length, &page)) return error_set(error, ERROR_FORMAT, "what came is no listing of a bucket, or only a part of one");
  if (make_room(l, page, error) != 0 || add_each(l, page, "Contents", prefix, add_file, error) != 0 ||
      add_each(l, page, "CommonPrefixes", prefix, add_folder, error) != 0)
    return -1;
  return read_next(l, page, error);
}

void bucket_listing_init(struct bucket_listing *l) {
  memset(l, 0, sizeof *l);
  arena_init(&l->arena, 0);
}

void bucket_listing_clear(struct bucket_listing *l) {
  free(l->files);
  free(l->folders);
  arena_clear(&l->arena);
  memset(l, 0, sizeof *l);
}
