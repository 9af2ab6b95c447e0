/* words_command.h: the frame of verbs that take words (MODEL SOURCE, FOLDER), a few flags with values, and settings as `serve` does. */
#ifndef STEERD_SERVER_WORDS_COMMAND_H
#define STEERD_SERVER_WORDS_COMMAND_H

#include "core/base/error.h"
#include "server/options.h"

#define WORDS_MOST 3

struct words_command {
  int most_words;
  const char *own[2]; /* the verb's flags: "--out" */
  void (*help)(void);
  int (*run)(const struct words_command *command, struct options *settings, struct error *error);
  /* Set by words_command_main. */
  const char *words[WORDS_MOST], *own_values[2]; /* what was given for the flags; NULL: nothing */
  int n_words, argc;
  char **argv; /* what is left for the settings */
};

/* Reads the arguments and runs the verb; the process's exit status. */
int words_command_main(struct words_command *command, int argc, char **argv);

#endif
