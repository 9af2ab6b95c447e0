/* place_command.c: arguments and frame of the verbs that take one PLACE. Knows no verb. */
#include "server/place_command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "core/base/mapfile.h"
#include "server/command.h"
#include "server/config.h"

/* What is left for the settings. */
struct rest {
  int argc;
  char **argv;
};

static bool take_flag(const struct place_command *c, const char *word) {
  for (size_t i = 0; i < sizeof c->flags / sizeof *c->flags; i++)
    if (c->flags[i].word && strcmp(word, c->flags[i].word) == 0) return *c->flags[i].value = true;
  return false;
}

static int take_place(struct place_command *c, const char *word, struct error *error) {
  if (c->place) return error_set(error, ERROR_ARGUMENT, "%s takes one PLACE; found '%.100s' and '%.100s'", c->verb, c->place, word);
  c->place = word;
  return 0;
}

/* Without its name: a setting that sounds like it would be the wrong thing to suggest. */
static int refuse_flag(const struct place_command *c, const char *word, struct error *error) {
  char known[100] = "";
  for (size_t i = 0; i < sizeof c->flags / sizeof *c->flags && c->flags[i].word; i++)
    snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "", c->flags[i].word);
  return error_set(error, ERROR_ARGUMENT, "unknown flag '%.100s'; %s takes %s, and settings of 'steerd serve'", word, c->verb, known);
}

static int read_arguments(struct place_command *c, struct rest *rest, int argc, char **argv, struct error *error) {
  rest->argv = calloc((size_t)argc + 1, sizeof *rest->argv);
  if (!rest->argv) return error_memory(error, ((size_t)argc + 1) * sizeof *rest->argv);
  for (int i = 0; i < argc; i++) {
    if (take_flag(c, argv[i])) continue;
    if (argv[i][0] != '-') {
      if (take_place(c, argv[i], error) != 0) return -1;
      continue;
    }
    char name[64];
    if (!config_knows(argv[i], name) && strcmp(argv[i], "-h") != 0) return refuse_flag(c, argv[i], error);
    rest->argv[rest->argc++] = argv[i]; /* a setting and, unless it is --name=value, its value */
    if (!strchr(argv[i], '=') && i + 1 < argc) rest->argv[rest->argc++] = argv[++i];
  }
  if (c->place) return 0;
  return error_set(error, ERROR_ARGUMENT, "%s needs a PLACE: %s; see steerd help %s", c->verb, c->wants, c->verb);
}

int place_command_main(struct place_command *command, int argc, char **argv) {
  struct error error = ERROR_INIT;
  struct options options;
  struct rest rest = {0};
  bool help = false;
  memset(&options, 0, sizeof options);
  int failed = read_arguments(command, &rest, argc, argv, &error);
  log_set_level(LOG_LEVEL_WARN);
  mapfile_guard_install();
  if (!failed) failed = config_read(&options, rest.argc, rest.argv, CONFIG_SYSTEM_FILE, &help, &error);
  if (!failed && help)
    command->help();
  else if (!failed)
    failed = command->run(command, &options, &error);
  options_clear(&options);
  free(rest.argv);
  return failed ? complain(&error) : EXIT_DONE;
}
