/* train_command.c: `steerd train`: its flags, its bar, and what came of it as text. */
#include "server/train_command.h"

#include <stdio.h>
#include <string.h>

#include "core/training.h"
#include "server/job_command.h"
#include "server/lab_settings.h"
#include "server/progress.h"

void help_train(void) {
  puts("steerd train MODEL POINT --corpus FILE --out FOLDER [--kind topk|batchtopk|relu|jumprelu] [--model [ID=]PLACE] ...\n\n"
       "Trains a sparse dictionary on the activations of a point over a text and writes it as SAELens does, so that steerd and\n"
       "SAELens read it. Killed or interrupted, the same command goes on where it was. POINT is a name such as\n"
       "blocks.7.hook_resid_pre or resid_pre.7. MODEL is the ID of a --model; without --model it is demo, the model that\n"
       "comes with steerd. In parentheses: what is taken where an option is left out.\n\n"
       "needed\n"
       "  --corpus FILE      a UTF-8 text\n"
       "  --out FOLDER       where the dictionary goes: a new folder, or one that an unfinished run of the same settings has left\n\n"
       "of every kind\n"
       "  --to POINT_OUT     a transcoder: features are read at POINT and make the rows of this point, such as ln2.hook_normalized\n"
       "                     and hook_mlp_out of the same layer (none: an autoencoder, which makes the rows that it reads)\n"
       "  --kind KIND        topk: the k largest of a token; batchtopk: k a token on average; relu: fewer for a larger --l1;\n"
       "                     jumprelu: what is above a threshold that each feature learns, fewer for a larger --l0 (topk)\n"
       "  --features N       (8 times the width of the point), or --expansion N times the width\n"
       "  --lines            the text is cut at every newline (at the context)\n"
       "  --max-tokens N     of the text (0: all of it)\n"
       "  --steps N          (as many as the text has batches, at least 500), or --tokens N\n"
       "  --batch N          tokens of a step (1024)\n"
       "  --context N        tokens of a document (128)\n"
       "  --buffer N         tokens that are shuffled together (32 batches)\n"
       "  --rate X           the learning rate, or --lr (by the kind and the number of features)\n"
       "  --warm-up STEPS, --decay STEPS   of the learning rate (a twentieth of the steps, the last fifth)\n"
       "  --seed N           the same seed and settings give the same bits (0)\n"
       "  --checkpoint SECONDS   how often what a killed run goes on from is kept, at most (20)\n\n"
       "of topk and batchtopk only\n"
       "  --k N              features a token (32, an eighth of less than 256 features)\n"
       "  --aux X, --dead-after STEPS   what brings dead features back (1, a tenth of the steps)\n\n"
       "of relu only\n"
       "  --l1 X, --l1-warm-up STEPS    what keeps features few (5, a twentieth of the steps)\n\n"
       "of jumprelu only\n"
       "  --l0 X, --l0-warm-up STEPS    what keeps features few (1, a twentieth of the steps)\n"
       "  --l0-loss LOSS     what a feature at a token costs: step: 1; tanh: the tanh of --tanh-scale (4) times its activation;\n"
       "                     quadratic: the square of how far the token's number of features is from --target-l0 (32, an eighth\n"
       "                     of less than 256 features) (the one of --tanh-scale or --target-l0 where one is given, else step)\n"
       "  --threshold X, --bandwidth X  the first thresholds; how wide the window is in which they learn (0.01, 0.05)\n"
       "  --ste-to-input     encoders learn in that window too\n"
       "  --pre-act X, --dead-after STEPS   what brings dead features back (0: nothing does, a tenth of the steps)\n\n"
       "Every setting of 'steerd serve' works too (--model, --threads, --device ...).");
}

/* ---- arguments ---- */

struct train_command {
  struct job_command job; /* first */
  struct lab_train_args args;
  const char *rate_flag; /* it has two spellings */
};

#define FLAG_BYTES 32

/* "l1WarmUp" -> "--l1-warm-up" */
static const char *flag_of(const char *name, char out[FLAG_BYTES]) {
  size_t length = 2;
  memcpy(out, "--", 2);
  for (; *name && length < FLAG_BYTES - 2; name++) {
    bool capital = *name >= 'A' && *name <= 'Z';
    if (capital) out[length++] = '-';
    out[length++] = (char)(capital ? *name - 'A' + 'a' : *name);
  }
  out[length] = '\0';
  return out;
}

static const struct lab_train_option *find_option(const char *word) {
  size_t n;
  const struct lab_train_option *options = lab_train_options(&n);
  char flag[FLAG_BYTES];
  if (!strcmp(word, "--lr")) word = "--rate";
  for (size_t i = 0; i < n; i++)
    if (!strcmp(word, flag_of(options[i].name, flag))) return &options[i];
  return NULL;
}

static int take_option(struct lab_train_args *args, const struct lab_train_option *option, const char *flag, const char *value,
                       struct error *error) {
  int64_t whole = 0;
  double number = 0;
  char rest;
  if (option->whole) {
    if (job_command_number(flag, value, (int64_t)option->low, (int64_t)option->high, &whole, error) != 0) return -1;
    number = (double)whole;
  } else if (!value || sscanf(value, "%lf%c", &number, &rest) != 1 || !(number >= option->low && number <= option->high)) {
    return error_set(error, ERROR_ARGUMENT, "%s: '%s' is not a number from %.10g to %.10g", flag,
                     value ? value : "nothing", option->low, option->high);
  }
  lab_train_set(args, option, number);
  return 2;
}

static int take_text(const char *flag, const char *value, const char **out, struct error *error) {
  if (!value) return error_set(error, ERROR_ARGUMENT, "%s needs a value", flag);
  return *out = value, 2;
}

static int take_flag(struct job_command *job, const char *word, const char *value, struct error *error) {
  struct train_command *c = (struct train_command *)job;
  const struct lab_train_option *option = find_option(word);
  if (option && !strcmp(option->name, "rate")) c->rate_flag = strcmp(word, "--lr") ? "--rate" : "--lr";
  if (option) return take_option(&c->args, option, word, value, error);
  if (!strcmp(word, "--out")) return take_text(word, value, &c->args.out, error);
  if (!strcmp(word, "--to")) return take_text(word, value, &c->args.to, error);
  if (!strcmp(word, "--kind")) return take_text(word, value, &c->args.kind, error);
  if (!strcmp(word, "--l0-loss")) return take_text(word, value, &c->args.l0_loss, error);
  if (!strcmp(word, "--ste-to-input")) return c->args.ste_to_input = true, 1;
  return 0;
}

/* Errors begin with the name of the option that they are about, as JSON spells it: here as it was typed. */
static int tell_by_flag(const struct train_command *c, struct error *error) {
  struct error said = *error;
  size_t length = strlen(said.field);
  char flag[FLAG_BYTES];
  if (length == 0 || strncmp(said.text, said.field, length) != 0 || said.text[length] != ' ') return -1;
  flag_of(said.field, flag);
  error_clear(error);
  return error_set_field(error, said.code, said.field, "%s%s",
                         !strcmp(flag, "--rate") && c->rate_flag ? c->rate_flag : flag, said.text + length);
}

/* ---- the bar ---- */

/* What the step says, in front of the bar's own line. */
static bool tell(void *context, const struct lab_progress *progress) {
  const struct lab_train_figures *now = &progress->training;
  if (!progress->trains) return progress_tell(context, progress);
  char figures[128];
  snprintf(figures, sizeof figures, "loss %.4g, L0 %.3g, explained %.3f, dead %.1f %%", now->mse + now->sparsity + now->aux, now->l0,
           now->explained, 100 * (double)now->dead / (double)now->features);
  return progress_tell_with(figures, progress);
}

/* ---- the verb ---- */

static void print(const struct lab_model_info *model, const struct train_command *c, const struct lab_train_found *found) {
  printf("%s: %lld features of %s%s%s, trained on %lld tokens in %lld steps\n", found->folder, (long long)found->features,
         found->point, found->to ? " to " : "", found->to ? found->to : "", (long long)found->tokens,
         (long long)found->steps);
  if (found->held_out) {
    printf("over %lld tokens of the text that were held out:\n", (long long)found->held_out);
    printf("  features a token (L0)      %.4g\n", found->l0);
    printf("  explained variance (EV)    %.5f\n", found->explained);
    printf("  squared error (MSE)        %.5g\n", found->mse);
    printf("  features that never fired  %lld\n", (long long)found->dead);
  }
  printf("\nto serve it:\n  steerd serve --model %s=%s --source %s/%d-%s=%s\n", model->id, model->path, model->id, found->layer,
         c->args.kind, found->folder);
}

static int run(struct train_command *c, struct lab_options *settings, struct error *error) {
  struct lab_train_found found;
  struct arena arena;
  struct lab *lab = job_command_open(&c->job, settings, error);
  if (!lab) return -1;
  arena_init(&arena, 0);
  int failed = lab_train_run(lab, &c->args, tell, NULL, &arena, &found, error);
  progress_end();
  if (!failed) print(lab_find_model(lab, c->args.model_id, NULL), c, &found);
  arena_clear(&arena);
  lab_close(lab);
  return failed ? tell_by_flag(c, error) : 0;
}

/* What can be refused without the model is, before it is loaded. */
static int train(struct job_command *job, struct options *options, struct error *error) {
  struct train_command *c = (struct train_command *)job;
  struct lab_options settings;
  if (lab_settings(options, &settings, error)) return -1;
  settings.store = NULL; /* nothing of it is kept there */
  if (!c->args.out) return error_set(error, ERROR_ARGUMENT, "train needs --out FOLDER: where the dictionary goes");
  c->args.model_id = job->model_id;
  c->args.point = job->source_id;
  c->args.corpus = job->corpus;
  c->args.lines = job->lines;
  c->args.max_tokens = job->max_tokens;
  return lab_train_check(&c->args, error) != 0 ? tell_by_flag(c, error) : run(c, &settings, error);
}

/* Names for "did you mean": the table's, and those that are no numbers. */
#define MOST_FLAGS 64
static size_t name_flags(char names[MOST_FLAGS][FLAG_BYTES], const char *out[MOST_FLAGS]) {
  static const char *const words[] = {"out", "to", "kind", "lr", "l0-loss", "ste-to-input"};
  size_t n, count = 0;
  const struct lab_train_option *options = lab_train_options(&n);
  for (; count < sizeof words / sizeof *words; count++) out[count] = words[count];
  for (size_t i = 0; i < n && count < MOST_FLAGS; i++, count++) out[count] = flag_of(options[i].name, names[count]) + 2;
  return count;
}

int run_train(int argc, char **argv) {
  char names[MOST_FLAGS][FLAG_BYTES];
  const char *flags[MOST_FLAGS];
  struct train_command command = {.job = {.verb = "train", .help = help_train, .take_flag = take_flag, .flags = flags,
                                          .n_flags = name_flags(names, flags), .run = train, .subject = "POINT"},
                                  .args = LAB_TRAIN_DEFAULTS};
  return job_command_main(&command.job, argc, argv);
}
