/* command.h: what the verbs of the command line share: how they end. */
#ifndef STEERD_SERVER_COMMAND_H
#define STEERD_SERVER_COMMAND_H

#include <stdio.h>

#include "core/base/error.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* One line on standard error; the exit status for it. */
static inline int complain(const struct error *error) {
  fprintf(stderr, "steerd: %s\n", error->text);
  return error->code == ERROR_ARGUMENT ? EXIT_USAGE : EXIT_FAILED;
}

#endif
