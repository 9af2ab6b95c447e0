/* map_command.c: `steerd map`: its flags. The work is that of a job of kind map. */
#include "server/map_command.h"

#include <stdio.h>
#include <string.h>

#include "server/job_command.h"
#include "server/lab_settings.h"
#include "server/progress.h"

void help_map(void) {
  puts("steerd map MODEL SOURCE --store FILE [--seed N] [--replace] [--model [ID=]PLACE] [--source MODEL/SOURCE=PLACE] ...\n\n"
       "Draws the map of a source and keeps it in a store: every feature gets a place in the plane, near the features that write\n"
       "in similar directions (UMAP by cosine). The page /MODEL/SOURCE/map of a daemon with this store shows it.\n\n"
       "MODEL is the ID of a --model and SOURCE a --source of it, or a bare number: the neurons of that layer. Without --model and\n"
       "--source it is the demo that comes with steerd: MODEL is demo, SOURCE one of its dictionaries.\n\n"
       "needed\n"
       "  --store FILE       where the map is kept; made where it is not there\n\n"
       "may be left out (what is taken then)\n"
       "  --seed N           another number gives another picture of the same neighbours, the same number the same picture (0)\n"
       "  --replace          a map that is there already is replaced, an imported one too (it is left alone, with an error)\n\n"
       "A source may have up to 131,072 features. The time grows with the square of their number, and with the width of the model;\n"
       "the demo's 2,048 take a second or two. Interrupted, nothing is kept, and the same command begins again.\n\n"
       "Every setting of 'steerd serve' works too (--model, --source, --store, --threads ...).");
}

/* ---- arguments ---- */

struct map_command {
  struct job_command job; /* first */
  struct lab_map_args args;
};

static int take_flag(struct job_command *job, const char *word, const char *value, struct error *error) {
  struct lab_map_args *args = &((struct map_command *)job)->args;
  if (!strcmp(word, "--replace")) return args->replace = true, 1;
  if (strcmp(word, "--seed") != 0) return 0;
  return job_command_number(word, value, 0, INT64_MAX, &args->seed, error) ? -1 : 2;
}

/* ---- the verb ---- */

/* A map that is there is told in the words of a request; here a flag is meant. */
static int tell(const struct lab_map_args *args, const char *store, struct error *error) {
  if (error->code != ERROR_CONFLICT) return -1;
  error_clear(error);
  return error_set(error, ERROR_CONFLICT, "%s has a map of %s/%s already; with --replace a new one takes its place", store, args->model_id,
                   args->source_id);
}

static int draw(struct job_command *job, struct options *options, struct error *error) {
  struct lab_options settings;
  if (lab_settings(options, &settings, error)) return -1;
  if (!settings.store || !*settings.store)
    return error_set(error, ERROR_ARGUMENT, "map needs --store FILE: where the map is kept");
  struct lab *lab = job_command_open(job, &settings, error);
  if (!lab) return -1;
  struct lab_map_args args = ((const struct map_command *)job)->args;
  args.model_id = job->model_id;
  args.source_id = job->source_id;
  int failed = lab_map_run(lab, &args, progress_tell, NULL, error);
  progress_end();
  if (failed)
    failed = tell(&args, settings.store, error);
  else
    fprintf(stderr, "done: the map of %s/%s is in %s\n", args.model_id, args.source_id, settings.store);
  lab_close(lab);
  return failed;
}

int run_map(int argc, char **argv) {
  static const char *const flags[] = {"seed", "replace"};
  struct map_command command = {.job = {.verb = "map", .textless = true, .help = help_map, .take_flag = take_flag, .flags = flags,
                                        .n_flags = sizeof flags / sizeof *flags, .run = draw}};
  return job_command_main(&command.job, argc, argv);
}
