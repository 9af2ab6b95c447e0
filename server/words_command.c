/* words_command.c: arguments and frame of the verbs that take words. Their own words are taken out of the arguments; the rest are
 * settings like those of `serve`. Knows no verb. */
#include "server/words_command.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "core/base/mapfile.h"
#include "server/command.h"
#include "server/config.h"
#include "server/progress.h"

/* ---- arguments ---- */

/* "--name" or "--name=value". */
static int own_flag(const struct words_command *c, const char *word) {
  size_t length = strcspn(word, "=");
  for (int i = 0; i < 2; i++)
    if (c->own[i] && strlen(c->own[i]) == length && strncmp(word, c->own[i], length) == 0) return i;
  return -1;
}

static int read_arguments(struct words_command *c, int argc, char **argv, struct error *error) {
  c->argv = calloc((size_t)argc + 1, sizeof *c->argv);
  if (!c->argv) return error_memory(error, (size_t)argc * sizeof *c->argv);
  for (int i = 0; i < argc; i++) {
    char *word = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL, *equals = strchr(word, '=');
    int own = own_flag(c, word);
    if (own >= 0) {
      if (!equals && !value) return error_set(error, ERROR_ARGUMENT, "%s needs a value", word);
      c->own_values[own] = equals ? equals + 1 : value;
      i += !equals;
    } else if (word[0] != '-' && c->n_words < c->most_words) {
      c->words[c->n_words++] = word;
    } else { /* a setting and, unless it is --name=value, its value */
      c->argv[c->argc++] = word;
      if (word[0] == '-' && !equals && value) c->argv[c->argc++] = value, i++;
    }
  }
  return 0;
}

/* ---- the frame ---- */

int words_command_main(struct words_command *c, int argc, char **argv) {
  struct error error = ERROR_INIT;
  struct options options;
  bool help = false;
  if (read_arguments(c, argc, argv, &error)) {
    free(c->argv);
    return complain(&error);
  }
  log_set_level(LOG_LEVEL_WARN);
  mapfile_guard_install();
  progress_catch_signals();
  int failed = config_read(&options, c->argc, c->argv, CONFIG_SYSTEM_FILE, &help, &error);
  if (!failed && help)
    c->help();
  else if (!failed)
    failed = c->run(c, &options, &error);
  options_clear(&options);
  free(c->argv);
  return failed ? complain(&error) : EXIT_DONE;
}
