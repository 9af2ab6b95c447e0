/* eval_command.c: `steerd eval`. Its own flags are taken out of the arguments; the rest are settings like those of `serve`. */
#include "server/eval_command.h"

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

void help_eval(void) {
  puts("steerd eval MODEL SOURCE --corpus FILE [--lines] [--ends] --model ID=PATH --source MODEL/SOURCE=PATH\n\n"
       "Runs a dictionary over a text and prints how many features fire, how much of the rows it explains, and what the\n"
       "model still predicts with the reconstruction in their place. With --store FILE the figures are kept there too.\n\n"
       "  --corpus FILE      a UTF-8 text\n"
       "  --lines            every line is a document; else the text is cut at the context\n"
       "  --ends             the end of each document is predicted too (the model's EOS)\n"
       "  --max-tokens N     stop after so many tokens (0: the whole text)\n\n"
       "Every setting of 'steerd serve' works too (--model, --source, --store, --threads ...).");
}

/* ---- arguments ---- */

struct command {
  struct lab_eval_args args;
  int argc;
  char **argv; /* what is left for the settings */
  int positional;
};

/* 1 when `word` is a flag of this verb without value, 2 with one, 0 when it is none of its own, -1 on error. */
static int take_flag(struct command *c, const char *word, const char *value, struct error *error) {
  if (!strcmp(word, "--lines")) return c->args.lines = true, 1;
  if (!strcmp(word, "--ends")) return c->args.ends = true, 1;
  if (!strcmp(word, "--corpus")) {
    if (!value) return error_set(error, ERROR_ARGUMENT, "--corpus needs a file");
    return c->args.corpus = value, 2;
  }
  if (strcmp(word, "--max-tokens") != 0) return 0;
  if (value && number_parse_int(value, &c->args.max_tokens) && c->args.max_tokens >= 0) return 2;
  return error_set(error, ERROR_ARGUMENT, "--max-tokens: '%s' is not a number of 0 or more", value ? value : "nothing");
}

static int read_arguments(struct command *c, int argc, char **argv, struct error *error) {
  c->argv = calloc((size_t)argc + 1, sizeof *c->argv);
  if (!c->argv) return error_memory(error, (size_t)argc * sizeof *c->argv);
  for (int i = 0; i < argc;) {
    int taken = take_flag(c, argv[i], i + 1 < argc ? argv[i + 1] : NULL, error);
    if (taken < 0) return -1;
    bool word = argv[i][0] != '-';
    if (!taken && word && c->positional < 2) {
      *(c->positional++ == 0 ? &c->args.model_id : &c->args.source_id) = argv[i];
      taken = 1;
    } else if (!taken) { /* a setting and, unless it is --name=value, its value */
      c->argv[c->argc++] = argv[i];
      taken = 1;
      if (!word && !strchr(argv[i], '=') && i + 1 < argc) c->argv[c->argc++] = argv[i + 1], taken = 2;
    }
    i += taken;
  }
  if (c->positional == 2 && c->args.corpus) return 0;
  return error_set(error, ERROR_ARGUMENT, "eval needs MODEL, SOURCE and --corpus FILE; steerd help eval says more");
}

/* ---- the verb ---- */

static void print(const struct command *command, const struct store_evaluation *e) {
  double gap = e->ce_zero - e->ce_raw;
  printf("%s/%s over %s: %lld documents, %lld counted positions\n\n", command->args.model_id, command->args.source_id,
         e->corpus, (long long)e->n_documents, (long long)e->n_tokens);
  printf("  features a position (L0)         %.5g of %lld\n", e->l0, (long long)e->n_features);
  printf("  squared error a position (MSE)   %.6g   sum over the width\n", e->mse);
  printf("  explained variance (EV)          %.6f   1 - sum |y - x^|^2 / sum |y - mean y|^2\n", e->explained);
  printf("  unexplained (FVU)                %.6f   1 - EV\n\n", 1 - e->explained);
  printf("  cross-entropy over %lld predicted tokens, nats\n", (long long)e->n_predicted);
  printf("    the model as it is             %.6f\n", e->ce_raw);
  printf("    through the dictionary         %.6f\n", e->ce_spliced);
  printf("    with its error put back        %.6f\n", e->ce_error);
  printf("    zeros in its place             %.6f\n", e->ce_zero);
  printf("    share kept                     %.5f   (zero - through) / (zero - raw)\n\n",
         gap != 0 ? (e->ce_zero - e->ce_spliced) / gap : 0);
  printf("  features that never fire         %lld\n", (long long)e->n_dead);
  printf("  that fire at less than 10 %%, 1 %%, 0.1 %%, 0.01 %% of the positions   %lld, %lld, %lld, %lld\n",
         (long long)e->below[0], (long long)e->below[1], (long long)e->below[2], (long long)e->below[3]);
}

static int evaluate(const struct command *command, struct options *options, struct error *error) {
  struct lab_options settings;
  struct store_evaluation evaluation;
  struct arena arena;
  if (lab_settings(options, &settings, error)) return -1;
  settings.holder = "eval";
  struct lab *lab = lab_open(&settings, error);
  if (!lab && error->code == ERROR_BUSY)
    return error_prefix(error, "a running daemon evaluates too: POST /v1/jobs {\"kind\": \"eval\", ...} to it");
  if (!lab) return -1;
  arena_init(&arena, 0);
  int failed = lab_eval_run(lab, &command->args, progress_tell, NULL, &arena, &evaluation, error);
  progress_end();
  if (!failed) print(command, &evaluation);
  arena_clear(&arena);
  lab_close(lab);
  return failed;
}

int run_eval(int argc, char **argv) {
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
    help_eval();
  else if (!failed)
    failed = evaluate(&command, &options, &error);
  options_clear(&options);
  free(command.argv);
  return failed ? complain(&error) : EXIT_DONE;
}
