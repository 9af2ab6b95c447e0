/* job_command.h: the verbs that run a long job in this process: `steerd VERB MODEL SOURCE --corpus FILE ...`, or without a text.
 * Their own flags are taken out of the arguments; the rest are settings like those of `serve`. */
#ifndef STEERD_SERVER_JOB_COMMAND_H
#define STEERD_SERVER_JOB_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include "core/archive.h"
#include "server/options.h"

struct job_command {
  const char *verb, *subject; /* subject: what its second word is, "SOURCE" where it is NULL */
  bool textless; /* it reads no text: --corpus, --lines and --max-tokens are unknown to it */
  void (*help)(void);
  /* A flag of this verb: 1 when it has no value, 2 when it took `value` (NULL: nothing follows), 0 when it is none of its own,
   * -1 with an error. --corpus, --lines and --max-tokens are taken for all that read a text. */
  int (*take_flag)(struct job_command *command, const char *word, const char *value, struct error *error);
  const char *const *flags; /* their names, for "did you mean": [n_flags] */
  size_t n_flags;
  int (*run)(struct job_command *command, struct options *options, struct error *error);
  /* What all verbs are told. */
  const char *model_id, *source_id, *corpus;
  bool lines;
  int64_t max_tokens;
};

/* argv holds the arguments behind the verb. Returns the exit status. */
int job_command_main(struct job_command *command, int argc, char **argv);

/* A flag's number within [low, high], or an error that names both. */
int job_command_number(const char *flag, const char *value, int64_t low, int64_t high, int64_t *out,
                       struct error *error) MUST_CHECK;

/* The lab of the settings, opened in the verb's name; a store that a daemon holds is told with what to ask of it. NULL on error. */
struct lab *job_command_open(const struct job_command *command, struct lab_options *settings, struct error *error) MUST_CHECK;

#endif
