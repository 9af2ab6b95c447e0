/* config.h: settings from all their layers.
 *
 * built-in default < /etc/steerd/steerd.ini < --config FILE < environment STEERD_<KEY> < --flag. A later
 * layer replaces a list of an earlier one; a flag given several times adds up. */
#ifndef STEERD_SERVER_CONFIG_H
#define STEERD_SERVER_CONFIG_H

#include <stdbool.h>

#include "core/base/error.h"
#include "server/options.h"

#define CONFIG_SYSTEM_FILE "/etc/steerd/steerd.ini"

/* Fills options from every layer; argv holds the arguments behind the verb. *help is set when --help is
 * among them (the rest is then not read). system_file may be NULL: that layer is left out; it may be
 * missing, a --config file may not. Errors: ERROR_ARGUMENT for anything a user wrote wrongly (names the
 * setting, where it stands, what was found and what is allowed), ERROR_NOT_FOUND, ERROR_IO, ERROR_FORMAT
 * for a file, ERROR_MEMORY. options is cleared by the caller in every case. */
int config_read(struct options *options, int argc, char **argv, const char *system_file, bool *help,
                struct error *error) MUST_CHECK;

/* Whether a word is a flag of a setting's, --config or --help, as "--name" or "--name=value"; its name into name[], cut to fit. */
bool config_knows(const char *word, char name[64]);

#endif
