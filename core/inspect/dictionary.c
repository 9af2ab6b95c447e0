/* dictionary.c: the lines that a dictionary's reader says of itself, as facts; of one alone, or of every section of an
 * ini. Knows no format. */
#include <stdio.h>
#include <string.h>

#include "core/base/buffer.h"
#include "core/base/ini.h"
#include "core/dict/dict.h"
#include "core/inspect/inspect_int.h"

/* The four sections of a dictionary. */
struct titles {
  const char *own, *fields, *tensors, *steps;
};

/* "field: k = 32" is an item of the list "fields"; any other key stands once, in the dictionary's own section. */
static int add_line(const char *line, const struct titles *titles, struct inspect_facts *facts, struct error *error) {
  const char *const lists[][2] = {{"field", titles->fields}, {"tensor", titles->tensors}, {"step", titles->steps}};
  const char *colon = strstr(line, ": ");
  char key[64];
  if (!colon) return 0;
  snprintf(key, sizeof key, "%.*s", (int)(colon - line), line);
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
    if (strcmp(key, lists[i][0]) == 0) return fact_text(facts, lists[i][1], NULL, error, "%s", colon + 2);
  return fact_text(facts, titles->own, key, error, "%s", colon + 2);
}

static int add_lines(char *text, const struct titles *titles, struct inspect_facts *facts, struct error *error) {
  int failed = 0;
  for (char *line = text, *end; !failed && line && *line; line = end + 1) {
    end = strchr(line, '\n');
    *end = '\0';
    failed = add_line(line, titles, facts, error);
  }
  return failed;
}

int inspect_dictionary(const char *path, struct inspect_facts *facts, struct error *error) {
  const struct titles titles = {"dictionary", "fields", "tensors", "steps"};
  struct buffer text;
  buffer_init(&text, 0);
  int failed = dict_describe(path, "0-inspected", &text, error); /* of a folder with many layers the first */
  if (!failed) failed = add_lines(text.data, &titles, facts, error);
  buffer_clear(&text);
  return failed;
}

/* ---- those of an ini ---- */

/* The source that entry i opens the section of; NULL for another section, or a further entry of one. */
static const char *source_at(const struct ini *ini, size_t i) {
  const char *section = ini_at(ini, i)->section;
  for (size_t k = 0; k < i; k++)
    if (!strcmp(ini_at(ini, k)->section, section)) return NULL;
  return strncmp(section, "source ", 7) == 0 ? section + 7 : NULL;
}

/* What cannot be read is said in its place: the other sections are worth reading all the same. */
static int inspect_source(const char *path, const char *id, struct inspect_facts *facts, struct error *error) {
  struct arena *arena = &facts->arena;
  const struct titles titles = {arena_printf(arena, error, "source %s", id), arena_printf(arena, error, "fields of %s", id),
                                arena_printf(arena, error, "tensors of %s", id), arena_printf(arena, error, "steps of %s", id)};
  struct error own = ERROR_INIT;
  struct buffer text;
  if (!titles.own || !titles.fields || !titles.tensors || !titles.steps) return -1;
  buffer_init(&text, 0);
  int failed = dict_describe(path, id, &text, &own) != 0 ? fact_text(facts, titles.own, "error", error, "%s", own.text)
                                                         : add_lines(text.data, &titles, facts, error);
  buffer_clear(&text);
  return failed;
}

int inspect_sources(const char *path, struct inspect_facts *facts, bool *model, struct error *error) {
  struct ini *ini = ini_open(path, error);
  int failed = ini ? 0 : -1;
  size_t n_sources = 0;
  *model = false;
  for (size_t i = 0; ini && i < ini_count(ini); i++) {
    const char *id = source_at(ini, i);
    *model |= strcmp(ini_at(ini, i)->section, "model") == 0;
    n_sources += id != NULL;
    if (id && facts && !failed) failed = inspect_source(path, id, facts, error);
  }
  if (!n_sources) *model = true; /* its reader says what is missing */
  ini_close(ini);
  return failed;
}
