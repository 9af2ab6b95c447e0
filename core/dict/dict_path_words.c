/* dict_path_words.c: words and numbers in a path. Knows no format. */
#include "core/dict/dict_path_words.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The folder is made absolute and the name kept: a cache links names to blobs that are called by their checksum. */
void path_words_init(struct path_words *words, const char *path) {
  char folder[DICT_PATH_BYTES], whole[PATH_MAX];
  size_t length = strlen(path);
  while (length > 1 && path[length - 1] == '/') length--;
  snprintf(words->text, sizeof words->text, "%.*s", (int)length, path);
  const char *slash = strrchr(words->text, '/'), *name = slash ? slash + 1 : words->text;
  bool inside = strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
  if (!inside) {
    if (realpath(words->text, whole)) snprintf(words->text, sizeof words->text, "%s", whole);
    return;
  }
  snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - words->text) + (slash == words->text) : 1,
           slash ? words->text : ".");
  if (!realpath(folder, whole)) return;
  char kept[256];
  snprintf(kept, sizeof kept, "%.255s", name); /* as long as a name can be */
  snprintf(words->text, sizeof words->text, "%.*s/%s", DICT_PATH_BYTES - 260, whole, kept);
}

bool path_words_number(const struct path_words *words, const char *word, int64_t *out) {
  bool found = false;
  for (const char *at = strstr(words->text, word); at; at = strstr(at + 1, word)) {
    const char *digits = at + strlen(word);
    size_t n = strspn(digits, "0123456789");
    if (n == 0 || n > 9) continue;
    *out = strtoll(digits, NULL, 10);
    found = true;
  }
  return found;
}

bool path_words_has(const struct path_words *words, const char *word) { return strstr(words->text, word) != NULL; }

const char *path_words_name(const struct path_words *words) {
  const char *slash = strrchr(words->text, '/');
  return slash ? slash + 1 : words->text;
}
