/* archive_command.c: `steerd import` and `steerd export`. Without --model only the store is opened; with it, what is imported must fit
 * the dictionaries. */
#include "server/archive_command.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/archive.h"
#include "core/base/number.h"
#include "server/lab_settings.h"
#include "server/progress.h"
#include "server/words_command.h"

void help_import(void) {
  puts("steerd import FOLDER --store FILE [--as MODEL/SOURCE] [--model [ID=]PLACE --source MODEL/SOURCE=PATH]\n\n"
       "Reads a source's statistics, examples and explanations from Neuronpedia's dataset layout into a store:\n"
       "FOLDER/features, FOLDER/activations and FOLDER/explanations with batch-N.jsonl.gz (or .jsonl), any of them, and\n"
       "source.jsonl and model.jsonl where they are there. A line that is not what it claims to be is refused by file and\n"
       "number. Doing it again changes nothing more.\n\n"
       "  --as MODEL/SOURCE  where it goes; else where the lines say\n\n"
       "With --model and --source the dictionary is opened too, and features that it lacks are refused.");
}

void help_export(void) {
  puts("steerd export MODEL SOURCE --out FOLDER --store FILE\n\n"
       "Writes everything a store has of a source in Neuronpedia's dataset layout, 1,024 features a batch. Importing it\n"
       "gives the same again. As the folder 'statistics' beside a dictionary's weights it is loaded by the first daemon that\n"
       "serves the dictionary with a store that has no statistics of it. A daemon that has the store open may go on: what is\n"
       "exported is what was there when the export began.\n\n"
       "  --out FOLDER       made if it is not there; must not hold an export yet\n"
       "  --digits N         rounds activations, logits and cosines to 2 to 9 significant digits: smaller, and no longer\n"
       "                     exactly what the store has (0: exact)");
}

/* ---- the store, with or without a lab around it ---- */

struct opened {
  struct lab *lab;     /* NULL without models */
  struct store *store; /* the lab's, or our own */
};

static int open_store(struct options *options, const char *verb, struct opened *out, struct error *error) {
  struct lab_options settings;
  if (lab_settings(options, &settings, error)) return -1;
  if (!settings.store || !*settings.store) return error_set(error, ERROR_ARGUMENT, "%s needs --store FILE", verb);
  settings.holder = verb;
  if (options->model.count || options->source.count) { /* not the demo that `serve` would take then: it has no place in every store */
    out->lab = lab_open(&settings, error);
    out->store = out->lab ? lab_store(out->lab) : NULL;
  } else {
    struct store_options store = {.path = settings.store, .holder = verb, .check = STORE_CHECK_QUICK};
    out->store = store_open(&store, error);
  }
  return out->store ? 0 : -1;
}

/* For verbs that only read: another process may hold the store, and keeps it. */
static int open_store_to_read(struct options *options, const char *verb, struct opened *out, struct error *error) {
  if (open_store(options, verb, out, error) == 0) return 0;
  if (error->code != ERROR_BUSY) return -1;
  error_clear(error);
  out->store = store_open_beside(options->store, false, error);
  return out->store ? 0 : -1;
}

static void close_store(struct opened *opened) {
  if (opened->lab)
    lab_close(opened->lab);
  else
    store_close(opened->store);
}

static bool tell(void *context, const struct archive_progress *progress) {
  (void)context;
  if (isatty(STDERR_FILENO))
    fprintf(stderr, "\r\033[K%s: %lld features, %lld examples, %lld explanations", progress->file ? progress->file : "done",
            (long long)progress->features, (long long)progress->examples, (long long)progress->explanations);
  return progress_stopped();
}

static void report(const char *what, const char *place, const struct archive_progress *done) {
  fprintf(stderr, "%s%s: %lld features, %lld examples and %lld explanations are in %s\n",
          isatty(STDERR_FILENO) ? "\r\033[K" : "", what, (long long)done->features, (long long)done->examples,
          (long long)done->explanations, place);
}

/* ---- the verbs ---- */

/* Splits MODEL/SOURCE at its last slash, its model copied into the arena. */
static int split_name(struct options *options, const char *name, struct archive_import_args *args, struct error *error) {
  const char *slash = strrchr(name, '/');
  if (!slash || slash == name || !slash[1])
    return error_set(error, ERROR_ARGUMENT, "--as: '%.200s' is not MODEL/SOURCE", name);
  args->model_id = arena_text(&options->arena, name, (size_t)(slash - name), error);
  args->source_id = slash + 1;
  return args->model_id ? 0 : -1;
}

static int import_folder(const struct words_command *c, struct options *options, struct error *error) {
  struct archive_import_args args = {.folder = c->words[0], .tell = tell};
  struct archive_progress done;
  struct opened opened = {NULL, NULL};
  if (c->n_words != 1) return error_set(error, ERROR_ARGUMENT, "import needs FOLDER; steerd help import says more");
  if (c->own_values[0] && split_name(options, c->own_values[0], &args, error)) return -1;
  if (open_store(options, "import", &opened, error)) return -1;
  int failed = archive_import(opened.store, &args, &done, error);
  close_store(&opened);
  if (!failed) report("imported", options->store, &done);
  return failed;
}

static int export_folder(const struct words_command *c, struct options *options, struct error *error) {
  struct archive_export_args args = {.model_id = c->words[0], .source_id = c->words[1], .folder = c->own_values[0],
                                     .tell = tell};
  int64_t digits = 0;
  struct archive_progress done;
  struct opened opened = {NULL, NULL};
  if (c->n_words != 2 || !args.folder)
    return error_set(error, ERROR_ARGUMENT, "export needs MODEL, SOURCE and --out FOLDER; steerd help export says more");
  if (c->own_values[1] && (!number_parse_int(c->own_values[1], &digits) || digits < 0 || digits == 1 || digits > 9))
    return error_set(error, ERROR_ARGUMENT, "--digits: '%.40s' is not 0 or a number from 2 to 9", c->own_values[1]);
  args.digits = (int)digits;
  if (open_store_to_read(options, "export", &opened, error)) return -1;
  int failed = archive_export(opened.store, &args, &done, error);
  close_store(&opened);
  if (!failed) report("exported", args.folder, &done);
  return failed;
}

int run_import(int argc, char **argv) {
  struct words_command command = {.most_words = 1, .own = {"--as"}, .help = help_import, .run = import_folder};
  return words_command_main(&command, argc, argv);
}

int run_export(int argc, char **argv) {
  struct words_command command = {.most_words = 2, .own = {"--out", "--digits"}, .help = help_export, .run = export_folder};
  return words_command_main(&command, argc, argv);
}
