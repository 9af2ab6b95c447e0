/* pull_command.c: `steerd pull`: its flags, its bar, and the next command to type. */
#include "server/pull_command.h"

#include <stdio.h>

#include "core/pull.h"
#include "server/lab_settings.h"
#include "server/place_command.h"
#include "server/progress.h"

void help_pull(void) {
  puts("steerd pull PLACE [--labels | --statistics] [--list]\n\n"
       "Brings a model or a dictionary from the Hugging Face hub into the cache that its tools and steerd share, where\n"
       "--model and --source find it by the same name. What is there is not fetched again; ended halfway, the same command goes on.\n"
       "PLACE is one of\n\n"
       "  gpt2                                      a model of the table (config/aliases.ini)\n"
       "  EleutherAI/pythia-70m[@REVISION]          a model's repository, at a branch, tag or commit\n"
       "  gpt2-small/7-res-jb                       a dictionary as Neuronpedia calls it\n"
       "  gpt2-small-res-jb/blocks.7.hook_resid_pre a dictionary as SAELens calls it: RELEASE/ID\n"
       "  OWNER/NAME/FOLDER                         a folder or file of any repository\n\n"
       "Of a model come config.json, its tokenizer and one form of its weights.\n\n"
       "  --labels      of a dictionary: what Neuronpedia has published as its features' explanations\n"
       "  --statistics  the same with its features and their examples, which is much more\n"
       "  --list        says what would come, and fetches nothing\n\n"
       "Labels and statistics come from NEURONPEDIA_DATASETS (Neuronpedia's public bucket) to ~/.cache/steerd/published, as a folder that\n"
       "`steerd import` takes.\n\n"
       "It needs the program curl, and reads HF_TOKEN (or the token that `hf auth login` has kept), HF_ENDPOINT, HF_HUB_CACHE, HF_HOME\n"
       "and HF_HUB_OFFLINE as the Hugging Face tools do; proxies are curl's (https_proxy). Files are compared with the hub's\n"
       "SHA-256 where it tells one, which it does of all large files. The daemon itself never goes out to a network.");
}

static bool list_only, labels, statistics;

/* ---- telling ---- */

static void write_size(int64_t bytes, char out[32]) {
  if (bytes < 1000000) snprintf(out, 32, "%.1f kB", (double)bytes / 1e3);
  else if (bytes < 1000000000) snprintf(out, 32, "%.1f MB", (double)bytes / 1e6);
  else snprintf(out, 32, "%.2f GB", (double)bytes / 1e9);
}

static void list_file(void *context, const char *path, int64_t bytes, bool is_there) {
  char size[32];
  (void)context;
  write_size(bytes, size);
  printf("%10s  %s%s\n", size, path, is_there ? "  (there)" : "");
}

/* What to type next. A dictionary's model is another thing to bring. */
static void tell_next(const struct place_command *c, const struct pull_report *report) {
  if (report->kind == PULL_MODEL)
    printf("serve it: steerd serve --model %s\n", c->place);
  else if (report->kind == PULL_DICTIONARY)
    printf("serve it: steerd serve --model %s --source %s   (the model, where it is not there yet: steerd pull %s)\n", report->model,
           c->place, report->model);
  else if (report->kind == PULL_PUBLISHED)
    printf("into a store: steerd import '%s' --store FILE   (--as MODEL/SOURCE, where you serve it by another name)\n", report->path);
  else
    printf("what it is: steerd inspect '%s'\n", report->path);
}

static void tell_done(const struct place_command *c, const struct pull_report *report) {
  const char *at = *report->commit ? " at " : "";
  char all[32], fetched[32];
  write_size(report->bytes, all);
  write_size(report->fetched, fetched);
  if (list_only) {
    printf("%zu files of %s%s%s, %s\n", report->files, report->repository, at, report->commit, all);
    return;
  }
  printf("%zu files of %s%s%.12s, %s (%s fetched) are in %s\n", report->files, report->repository, at, report->commit, all, fetched,
         report->path);
  tell_next(c, report);
}

/* ---- the verb ---- */

static int bring(const struct place_command *c, struct options *settings, struct error *error) {
  struct pull_options options = {.place = c->place, .list_only = list_only, .list = list_only ? list_file : NULL, .tell = progress_pull};
  struct pull_report report;
  if (lab_settings_names(settings, &options.models, &options.releases, error) != 0) return -1;
  if (labels && statistics) return error_set(error, ERROR_ARGUMENT, "--labels and --statistics: the latter brings both");
  progress_catch_signals();
  int failed = labels || statistics ? pull_published(&options, statistics, &report, error) : pull(&options, &report, error);
  progress_end();
  if (failed && error->code == ERROR_CANCELLED) return error_prefix(error, "what has come is kept, and the same command goes on");
  if (!failed) tell_done(c, &report);
  return failed;
}

int run_pull(int argc, char **argv) {
  struct place_command command = {.verb = "pull", .wants = "a model or a dictionary, such as gpt2 or gpt2-small/7-res-jb", .help = help_pull,
                                  .flags = {{"--list", &list_only}, {"--labels", &labels}, {"--statistics", &statistics}}, .run = bring};
  return place_command_main(&command, argc, argv);
}
