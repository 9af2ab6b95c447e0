/* dict_yaml.c: lines "key: value" at the margin of a config.yaml. Knows no key. */
#include "core/dict/dict_yaml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mapfile.h"

#define YAML_LIMIT (1 << 20)

/* Cuts blanks, a comment and quotes; NULL when the value is no plain scalar. */
static char *plain(char *value) {
  value += strspn(value, " \t");
  char quote = *value == '"' || *value == '\'' ? *value : 0;
  if (quote) {
    char *end = strchr(++value, quote);
    if (!end || strchr(value, '\\')) return NULL;
    *end = '\0';
    return value;
  }
  char *comment = strstr(value, " #");
  if (comment) *comment = '\0';
  size_t n = strlen(value);
  while (n && strchr(" \t\r", value[n - 1])) value[--n] = '\0';
  return *value && strchr("[{&*!|>%@`", *value) ? NULL : value;
}

int dict_yaml_find(const char *text, const char *key, const char *file, char out[DICT_YAML_BYTES], struct error *error) {
  size_t length = strlen(key);
  out[0] = '\0';
  for (const char *line = text; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
    if (strncmp(line, key, length) != 0 || line[length] != ':') continue;
    char copy[DICT_YAML_BYTES];
    size_t n = strcspn(line + length + 1, "\n");
    snprintf(copy, sizeof copy, "%.*s", (int)(n < sizeof copy ? n : sizeof copy - 1), line + length + 1);
    const char *value = n < sizeof copy ? plain(copy) : NULL;
    if (!value) return error_set(error, ERROR_FORMAT, "'%s': '%s' is no plain value on one line", file, key);
    memcpy(out, value, strlen(value) + 1);
    return 0;
  }
  return 0;
}

char *dict_yaml_read(const char *file, struct error *error) {
  char *text = NULL;
  size_t length;
  if (file_read(file, YAML_LIMIT, &text, &length, error) != 0) return NULL;
  if (strlen(text) == length) return text;
  free(text);
  error_set(error, ERROR_FORMAT, "'%s' holds a NUL byte", file);
  return NULL;
}
