/* place_command.h: the frame of verbs that take one PLACE, flags without values, and settings as `serve` does. */
#ifndef STEERD_SERVER_PLACE_COMMAND_H
#define STEERD_SERVER_PLACE_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/error.h"
#include "server/options.h"

struct place_command {
  const char *verb, *wants; /* "inspect"; what a PLACE is, for who gave none: "a model or a file of tensors" */
  void (*help)(void);
  struct {
    const char *word; /* "--json" */
    bool *value;      /* becomes true */
  } flags[3];
  /* What the verb does; `settings` is everything else that was said. */
  int (*run)(const struct place_command *command, struct options *settings, struct error *error);
  const char *place; /* set by place_command_main */
};

/* Reads the arguments and runs the verb; the process's exit status. */
int place_command_main(struct place_command *command, int argc, char **argv);

#endif
