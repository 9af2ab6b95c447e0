/* stats_command.c: `steerd stats`. Its own flags are taken out of the arguments; the rest are settings like those of
 * `serve`. An interrupt keeps what was counted; the same command goes on from there. */
#include "server/stats_command.h"

#include <stdlib.h>
#include <string.h>

#include "core/archive.h"
#include "core/base/log.h"
#include "core/base/mapfile.h"
#include "core/base/number.h"
#include "server/command.h"
#include "server/config.h"
#include "server/lab_settings.h"
#include "server/progress.h"

void help_stats(void) {
  puts("steerd stats MODEL SOURCE --corpus FILE [--lines] --store FILE --model [ID=]PLACE --source MODEL/SOURCE=PATH\n\n"
       "Counts what every feature of a source does over a text and keeps it in a store: how often it fires, histograms,\n"
       "strongest examples, what it promotes, nearest features, a short explanation. Killed or interrupted, the same\n"
       "command goes on where it was.\n\n"
       "  --corpus FILE      a UTF-8 text\n"
       "  --lines            every line is a document; else the text is cut at the context\n"
       "  --top N            strongest examples of a feature, 0 to 100 (20)\n"
       "  --quantile N       examples in each of 8 intervals of activation, 0 to 10 (2)\n"
       "  --window N         tokens of an example, 8 to 256 (64)\n"
       "  --max-tokens N     stop after so many tokens (0: the whole text)\n"
       "  --no-logits, --no-neighbours, --no-explain   leave that out\n\n"
       "Every setting of 'steerd serve' works too (--model, --source, --store, --threads ...).");
}

/* ---- arguments ---- */

struct command {
  struct lab_stats_args args;
  int argc;
  char **argv; /* what is left for the settings */
  int positional;
};

static int take_number(const char *flag, const char *value, int64_t low, int64_t high, int64_t *out,
                       struct error *error) {
  if (value && number_parse_int(value, out) && *out >= low && *out <= high) return 0;
  return error_set(error, ERROR_ARGUMENT, "%s: '%s' is not a number from %lld to %lld", flag, value ? value : "nothing",
                   (long long)low, (long long)high);
}

/* 1 when `word` is a flag of this verb without value, 2 with one, 0 when it is none of its own, -1 on error. */
static int take_flag(struct command *c, const char *word, const char *value, struct error *error) {
  int64_t n = 0;
  if (!strcmp(word, "--lines")) return c->args.lines = true, 1;
  if (!strcmp(word, "--no-logits")) return c->args.logits = false, 1;
  if (!strcmp(word, "--no-neighbours")) return c->args.neighbours = false, 1;
  if (!strcmp(word, "--no-explain")) return c->args.explain = false, 1;
  if (!strcmp(word, "--corpus")) {
    if (!value) return error_set(error, ERROR_ARGUMENT, "--corpus needs a file");
    return c->args.corpus = value, 2;
  }
  if (!strcmp(word, "--top")) {
    if (take_number(word, value, 0, 100, &n, error)) return -1;
    return c->args.n_top = (int)n, 2;
  }
  if (!strcmp(word, "--quantile")) {
    if (take_number(word, value, 0, 10, &n, error)) return -1;
    return c->args.n_quantile = (int)n, 2;
  }
  if (!strcmp(word, "--window")) {
    if (take_number(word, value, 8, 256, &n, error)) return -1;
    return c->args.window = (int)n, 2;
  }
  if (!strcmp(word, "--max-tokens")) return take_number(word, value, 0, INT64_MAX, &c->args.max_tokens, error) ? -1 : 2;
  return 0;
}

static int read_arguments(struct command *c, int argc, char **argv, struct error *error) {
  c->args = (struct lab_stats_args)LAB_STATS_DEFAULTS;
  c->argv = calloc((size_t)argc + 1, sizeof *c->argv);
  if (!c->argv) return error_memory(error, (size_t)argc * sizeof *c->argv);
  for (int i = 0; i < argc;) {
    int taken = take_flag(c, argv[i], i + 1 < argc ? argv[i + 1] : NULL, error);
    if (taken < 0) return -1;
    bool own = taken > 0, word = argv[i][0] != '-';
    if (!own && word && c->positional < 2) {
      *(c->positional++ == 0 ? &c->args.model_id : &c->args.source_id) = argv[i];
      taken = 1;
    } else if (!own) { /* a setting and, unless it is --name=value, its value */
      c->argv[c->argc++] = argv[i];
      taken = 1;
      if (!word && !strchr(argv[i], '=') && i + 1 < argc) c->argv[c->argc++] = argv[i + 1], taken = 2;
    }
    i += taken;
  }
  if (c->positional < 2 || !c->args.corpus)
    return error_set(error, ERROR_ARGUMENT, "stats needs MODEL, SOURCE and --corpus FILE; steerd help stats says more");
  return 0;
}

/* ---- the verb ---- */

static int run_job(const struct command *command, struct options *options, struct error *error) {
  struct lab_options settings;
  if (lab_settings(options, &settings, error)) return -1;
  if (!settings.store || !*settings.store)
    return error_set(error, ERROR_ARGUMENT, "stats needs --store FILE: where the statistics are kept");
  settings.holder = "stats";
  struct lab *lab = lab_open(&settings, error);
  if (!lab && error->code == ERROR_BUSY)
    return error_prefix(error, "a running daemon counts too: POST /v1/jobs {\"kind\": \"stats\", ...} to it");
  if (!lab) return -1;
  int failed = lab_stats_run(lab, &command->args, progress_tell, NULL, error);
  progress_end();
  if (!failed) fprintf(stderr, "done: statistics of %s/%s are in %s\n", command->args.model_id, command->args.source_id, settings.store);
  lab_close(lab);
  return failed;
}

int run_stats(int argc, char **argv) {
  struct error error = ERROR_INIT;
  struct command command;
  struct options options;
  bool help = false;
  memset(&command, 0, sizeof command);
  if (read_arguments(&command, argc, argv, &error)) {
    free(command.argv);
    return complain(&error);
  }
  log_set_level(LOG_LEVEL_WARN);
  mapfile_guard_install();
  progress_catch_signals();
  int failed = config_read(&options, command.argc, command.argv, CONFIG_SYSTEM_FILE, &help, &error);
  if (!failed && help)
    help_stats();
  else if (!failed)
    failed = run_job(&command, &options, &error);
  options_clear(&options);
  free(command.argv);
  return failed ? complain(&error) : EXIT_DONE;
}
