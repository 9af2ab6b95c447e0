/* ini.h: INI files (through inih): config/steerd.ini and the small files that describe a model.
 *
 * Sections and keys keep their order and their line numbers, so that an error can say "file:line". Lines may
 * be 4,096 bytes long, section names 48; a file at most 1 MiB of UTF-8. A key that stands twice in a section is
 * an error, also when the section was opened twice. `;` and `#` begin a comment line; " ;" behind a value begins
 * a comment too. There are no continuation lines. */
#ifndef STEERD_CORE_BASE_INI_H
#define STEERD_CORE_BASE_INI_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/error.h"

struct ini_entry {
  const char *section; /* "" before the first section */
  const char *key;
  const char *value;   /* trimmed; never NULL */
  int line;
};

struct ini;

/* NULL with ERROR_NOT_FOUND / ERROR_IO / ERROR_FORMAT naming file and line. */
struct ini *ini_open(const char *path, struct error *error) MUST_CHECK;

/* As ini_open, from memory; `path` is for error texts. */
struct ini *ini_open_text(const char *path, const char *text, size_t length, struct error *error) MUST_CHECK;
void ini_close(struct ini *ini); /* NULL is fine */

size_t ini_count(const struct ini *ini);
const struct ini_entry *ini_at(const struct ini *ini, size_t i); /* file order */
const struct ini_entry *ini_find(const struct ini *ini, const char *section, const char *key); /* or NULL */
const char *ini_path(const struct ini *ini); /* as given to ini_open */

/* Whether a path names an INI file: it ends in ".ini". */
bool ini_is_path(const char *path);

/* The value of `entry` as a path: an absolute one as it is, a relative one below the folder in the environment
 * variable STEERD_DATA (default ../shared/data). ERROR_FORMAT when it does not fit into `size` bytes, ERROR_NOT_FOUND when that folder is not there. */
int ini_value_path(const struct ini *ini, const struct ini_entry *entry, char *out, size_t size,
                   struct error *error) MUST_CHECK;

#endif
