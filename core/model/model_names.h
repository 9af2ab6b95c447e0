/* model_names.h: the table of names of models (config/aliases.ini): which names mean the same model, and which
 * repository on Hugging Face it is. ASCII upper and lower case count the same. */
#ifndef STEERD_CORE_MODEL_MODEL_NAMES_H
#define STEERD_CORE_MODEL_MODEL_NAMES_H

#include <stddef.h>

#include "core/base/error.h"

struct model_names;

/* Reads a table: section [models] has ID = REPOSITORY ..., section [aliases] NAME = ID. An alias of an id without a row is
 * fine. path NULL or "": an empty table. NULL with ERROR_NOT_FOUND / ERROR_FORMAT naming file and line, among them a name
 * that stands for two ids. */
struct model_names *model_names_open(const char *path, struct error *error) MUST_CHECK;
void model_names_close(struct model_names *names); /* NULL is fine */

/* The id that a name stands for: `name` itself when the table does not have it. */
const char *model_names_id(const struct model_names *names, const char *name);

/* The repositories of an id, separated by spaces, the preferred one first; NULL when the table has none. */
const char *model_names_repositories(const struct model_names *names, const char *id);

/* The name of the table that somebody probably meant, or NULL. */
const char *model_names_nearest(const struct model_names *names, const char *word);

#endif
