/* inspect_dictionary.c: the lines that a dictionary's reader says of itself, as facts. Knows no format. */
#include <stdio.h>
#include <string.h>

#include "core/base/buffer.h"
#include "core/dict/dict.h"
#include "core/inspect_int.h"

/* "field: k = 32" is an item of the list "fields"; any other key stands once, in "dictionary". */
static int add_line(const char *line, struct inspect_facts *facts, struct error *error) {
  static const char *const lists[][2] = {{"field", "fields"}, {"tensor", "tensors"}, {"step", "steps"}};
  const char *colon = strstr(line, ": ");
  char key[64];
  if (!colon) return 0;
  snprintf(key, sizeof key, "%.*s", (int)(colon - line), line);
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
    if (strcmp(key, lists[i][0]) == 0) return fact_text(facts, lists[i][1], NULL, error, "%s", colon + 2);
  return fact_text(facts, "dictionary", key, error, "%s", colon + 2);
}

int inspect_dictionary(const char *path, struct inspect_facts *facts, struct error *error) {
  struct buffer text;
  buffer_init(&text, 0);
  int failed = dict_describe(path, "inspected", &text, error);
  for (char *line = text.data, *end; !failed && line && *line; line = end + 1) {
    end = strchr(line, '\n');
    *end = '\0';
    failed = add_line(line, facts, error);
  }
  buffer_clear(&text);
  return failed;
}
