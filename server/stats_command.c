/* stats_command.c: `steerd stats`: its flags. An interrupt keeps what was counted; the same command goes on from there. */
#include "server/stats_command.h"

#include <stdio.h>
#include <string.h>

#include "server/job_command.h"
#include "server/lab_settings.h"
#include "server/progress.h"

void help_stats(void) {
  puts("steerd stats MODEL SOURCE --corpus FILE --store FILE [--lines] [--model [ID=]PLACE] [--source MODEL/SOURCE=PLACE] ...\n\n"
       "Counts what every feature of a source does over a text and keeps it in a store: how often it fires, histograms,\n"
       "strongest examples, what it promotes, nearest features, a short explanation. Killed or interrupted, the same\n"
       "command goes on where it was.\n\n"
       "MODEL is the ID of a --model and SOURCE a --source of it, or a bare number: the neurons of that layer. Without --model and\n"
       "--source it is the demo that comes with steerd: MODEL is demo, SOURCE one of its dictionaries.\n\n"
       "needed\n"
       "  --corpus FILE      a UTF-8 text\n"
       "  --store FILE       where the statistics are kept; made where it is not there\n\n"
       "may be left out (what is taken then)\n"
       "  --lines            the text is cut at every newline (n newlines, n + 1 documents, empty ones too); else at the context\n"
       "  --top N            strongest examples of a feature, 0 to 100 (20)\n"
       "  --quantile N       examples in each of 8 intervals of activation, 0 to 10 (2)\n"
       "  --window N         tokens of an example, 8 to 256 (64)\n"
       "  --max-tokens N     stop with the document that reaches so many tokens; it is read to its end (0: the whole text)\n"
       "  --no-logits, --no-neighbours, --no-explain   leave that out\n\n"
       "Every setting of 'steerd serve' works too (--model, --source, --store, --threads ...).");
}

/* ---- arguments ---- */

struct stats_command {
  struct job_command job; /* first */
  struct lab_stats_args args;
};

static int take_int(const char *flag, const char *value, int low, int high, int *out, struct error *error) {
  int64_t n;
  if (job_command_number(flag, value, low, high, &n, error) != 0) return -1;
  return *out = (int)n, 2;
}

static int take_flag(struct job_command *job, const char *word, const char *value, struct error *error) {
  struct lab_stats_args *args = &((struct stats_command *)job)->args;
  if (!strcmp(word, "--no-logits")) return args->logits = false, 1;
  if (!strcmp(word, "--no-neighbours")) return args->neighbours = false, 1;
  if (!strcmp(word, "--no-explain")) return args->explain = false, 1;
  if (!strcmp(word, "--top")) return take_int(word, value, 0, 100, &args->n_top, error);
  if (!strcmp(word, "--quantile")) return take_int(word, value, 0, 10, &args->n_quantile, error);
  if (!strcmp(word, "--window")) return take_int(word, value, 8, 256, &args->window, error);
  return 0;
}

/* ---- the verb ---- */

static int count(struct job_command *job, struct options *options, struct error *error) {
  struct lab_options settings;
  if (lab_settings(options, &settings, error)) return -1;
  if (!settings.store || !*settings.store)
    return error_set(error, ERROR_ARGUMENT, "stats needs --store FILE: where the statistics are kept");
  struct lab *lab = job_command_open(job, &settings, error);
  if (!lab) return -1;
  struct lab_stats_args args = ((const struct stats_command *)job)->args;
  args.model_id = job->model_id;
  args.source_id = job->source_id;
  args.corpus = job->corpus;
  args.lines = job->lines;
  args.max_tokens = job->max_tokens;
  int failed = lab_stats_run(lab, &args, progress_tell, NULL, error);
  progress_end();
  if (!failed)
    fprintf(stderr, "done: statistics of %s/%s are in %s\n", args.model_id, args.source_id, settings.store);
  lab_close(lab);
  return failed;
}

int run_stats(int argc, char **argv) {
  static const char *const flags[] = {"top", "quantile", "window", "no-logits", "no-neighbours", "no-explain"};
  struct stats_command command = {
      .job = {.verb = "stats", .help = help_stats, .take_flag = take_flag, .flags = flags, .n_flags = sizeof flags / sizeof *flags,
              .run = count},
      .args = LAB_STATS_DEFAULTS};
  return job_command_main(&command.job, argc, argv);
}
