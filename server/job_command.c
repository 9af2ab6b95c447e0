/* job_command.c: arguments and frame of the verbs that run a long job. Knows no job. */
#include "server/job_command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "core/base/mapfile.h"
#include "core/base/nearest.h"
#include "core/base/number.h"
#include "server/command.h"
#include "server/config.h"
#include "server/progress.h"

/* ---- arguments ---- */

struct rest {
  int argc;
  char **argv; /* what is left for the settings */
  int positional;
};

int job_command_number(const char *flag, const char *value, int64_t low, int64_t high, int64_t *out,
                       struct error *error) {
  if (value && number_parse_int(value, out) && *out >= low && *out <= high) return 0;
  if (high == INT64_MAX)
    return error_set(error, ERROR_ARGUMENT, "%s: '%s' is not a whole number of %lld or more", flag, value ? value : "nothing",
                     (long long)low);
  return error_set(error, ERROR_ARGUMENT, "%s: '%s' is not a whole number from %lld to %lld", flag, value ? value : "nothing",
                   (long long)low, (long long)high);
}

static int take_flag(struct job_command *c, const char *word, const char *value, struct error *error) {
  if (c->textless) return c->take_flag(c, word, value, error);
  if (!strcmp(word, "--lines")) return c->lines = true, 1;
  if (!strcmp(word, "--max-tokens")) return job_command_number(word, value, 0, INT64_MAX, &c->max_tokens, error) ? -1 : 2;
  if (strcmp(word, "--corpus") != 0) return c->take_flag(c, word, value, error);
  if (!value) return error_set(error, ERROR_ARGUMENT, "--corpus needs a file");
  return c->corpus = value, 2;
}

/* A flag that nobody knows, which the arguments behind it would be blamed for otherwise. */
static int refuse_flag(const struct job_command *c, const char *name, struct error *error) {
  static const char *const common[] = {"corpus", "lines", "max-tokens"};
  const char *near = c->textless ? NULL : nearest_name(name, common, sizeof common / sizeof *common);
  if (!near) near = nearest_name(name, c->flags, c->n_flags);
  if (!near) near = option_nearest(name);
  if (!near) return error_set(error, ERROR_ARGUMENT, "unknown flag '--%s'; steerd help %s lists them", name, c->verb);
  return error_set(error, ERROR_ARGUMENT, "unknown flag '--%s'; did you mean '--%s'?", name, near);
}

/* MODEL, SOURCE, or a setting and, unless it is --name=value, its value. How many arguments that was. */
static int take_other(struct job_command *c, struct rest *rest, char **at, bool last, struct error *error) {
  bool word = at[0][0] != '-';
  char name[64];
  if (!strncmp(at[0], "--", 2) && !config_knows(at[0], name)) return refuse_flag(c, name, error);
  if (word && rest->positional < 2) {
    *(rest->positional++ == 0 ? &c->model_id : &c->source_id) = at[0];
    return 1;
  }
  rest->argv[rest->argc++] = at[0];
  if (word || last || strchr(at[0], '=')) return 1;
  rest->argv[rest->argc++] = at[1];
  return 2;
}

/* A flag of the verb's own, as "--name value" or "--name=value". How many arguments that was; 0: it is none. */
static int take_own(struct job_command *c, char **at, bool last, struct error *error) {
  char word[64];
  const char *equals = strncmp(at[0], "--", 2) ? NULL : strchr(at[0], '=');
  if (!equals) return take_flag(c, at[0], last ? NULL : at[1], error);
  snprintf(word, sizeof word, "%.*s", (int)(equals - at[0]), at[0]);
  int taken = take_flag(c, word, equals + 1, error);
  if (taken == 1) return error_set(error, ERROR_ARGUMENT, "%s takes no value, found '%.100s'", word, equals + 1);
  return taken == 2 ? 1 : taken;
}

static int read_arguments(struct job_command *c, struct rest *rest, int argc, char **argv, struct error *error) {
  rest->argv = calloc((size_t)argc + 1, sizeof *rest->argv);
  if (!rest->argv) return error_memory(error, (size_t)argc * sizeof *rest->argv);
  for (int i = 0; i < argc;) {
    bool last = i + 1 == argc;
    int taken = take_own(c, argv + i, last, error);
    if (!taken) taken = take_other(c, rest, argv + i, last, error);
    if (taken < 0) return -1;
    i += taken;
  }
  if (rest->positional == 2 && (c->corpus || c->textless)) return 0;
  return error_set(error, ERROR_ARGUMENT, "%s needs MODEL%s %s%s; steerd help %s says more", c->verb, c->textless ? " and" : ",",
                   c->subject ? c->subject : "SOURCE", c->textless ? "" : " and --corpus FILE", c->verb);
}

/* ---- the frame ---- */

struct lab *job_command_open(const struct job_command *command, struct lab_options *settings, struct error *error) {
  settings->holder = command->verb;
  struct lab *lab = lab_open(settings, error);
  if (!lab && error->code == ERROR_BUSY)
    error_prefix(error, "a running daemon does this too: POST /v1/jobs {\"kind\": \"%s\", ...} to it", command->verb);
  return lab;
}

int job_command_main(struct job_command *command, int argc, char **argv) {
  struct error error = ERROR_INIT;
  struct rest rest = {0};
  struct options options;
  bool help = false;
  if (read_arguments(command, &rest, argc, argv, &error)) {
    free(rest.argv);
    return complain(&error);
  }
  log_set_level(LOG_LEVEL_WARN);
  mapfile_guard_install();
  progress_catch_signals();
  int failed = config_read(&options, rest.argc, rest.argv, CONFIG_SYSTEM_FILE, &help, &error);
  if (!failed && help)
    command->help();
  else if (!failed)
    failed = command->run(command, &options, &error);
  options_clear(&options);
  free(rest.argv);
  return failed ? complain(&error) : EXIT_DONE;
}
