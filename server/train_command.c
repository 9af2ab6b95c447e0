/* train_command.c: `steerd train`: its flags, its bar, and what came of it as text. */
#include "server/train_command.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/training.h"
#include "server/job_command.h"
#include "server/lab_settings.h"
#include "server/progress.h"

void help_train(void) {
  puts("steerd train MODEL POINT --corpus FILE --out FOLDER [--kind topk|batchtopk|relu] --model [ID=]PLACE\n\n"
       "Trains a sparse dictionary on the activations of a point over a text and writes it as SAELens does, so that steerd and\n"
       "SAELens read it. Killed or interrupted, the same command goes on where it was. POINT is a name such as\n"
       "blocks.7.hook_resid_pre or resid_pre.7. Without --model it is the demo's model, called demo.\n\n"
       "  --corpus FILE      a UTF-8 text\n"
       "  --lines            the text is cut at every newline; else at the context\n"
       "  --out FOLDER       where the dictionary goes: a new folder\n"
       "  --kind KIND        topk: the k largest of a token; batchtopk: k a token on average; relu: fewer for a larger --l1 (topk)\n"
       "  --features N       (8 times the width of the point), or --expansion N times the width\n"
       "  --k N              features a token, of topk and batchtopk (32)\n"
       "  --steps N          (as many as the text has batches, at least 500), or --tokens N\n"
       "  --batch N          tokens of a step (1024)\n"
       "  --context N        tokens of a document (128)\n"
       "  --buffer N         tokens that are shuffled together (32 batches)\n"
       "  --rate X           the learning rate, or --lr (by the kind and the number of features)\n"
       "  --seed N           the same seed and settings give the same bits (0)\n"
       "  --l1 X, --l1-warm-up STEPS   of relu (5, a twentieth of the steps)\n"
       "  --aux X, --dead-after STEPS  what brings dead features of topk and batchtopk back (1, a tenth of the steps)\n"
       "  --warm-up STEPS, --decay STEPS   of the learning rate (a twentieth, the last fifth)\n"
       "  --max-tokens N     of the text (0: all of it)\n\n"
       "Every setting of 'steerd serve' works too (--model, --threads, --device ...).");
}

/* ---- arguments ---- */

struct train_command {
  struct job_command job; /* first */
  struct lab_train_args args;
};

/* Flags with a whole number. */
static int64_t *whole_of(struct train_command *c, const char *word, int64_t *low) {
  struct lab_train_args *a = &c->args;
  const struct {
    const char *word;
    int64_t *to, low;
  } flags[] = {{"--features", &a->features, 1}, {"--expansion", &a->expansion, 1}, {"--k", &a->k, 1}, {"--steps", &a->steps, 1},
               {"--tokens", &a->tokens, 1}, {"--batch", &a->batch, 1}, {"--context", &a->context, 1}, {"--buffer", &a->buffer, 1},
               {"--l1-warm-up", &a->l1_warm_up, 0}, {"--dead-after", &a->dead_after, 1}, {"--warm-up", &a->warm_up, 0},
               {"--decay", &a->decay, 0}};
  for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
    if (!strcmp(word, flags[i].word)) return *low = flags[i].low, flags[i].to;
  return NULL;
}

static int take_number(const char *flag, const char *value, double *out, struct error *error) {
  char rest;
  if (value && sscanf(value, "%lf%c", out, &rest) == 1 && isfinite(*out) && *out >= 0) return 2;
  return error_set(error, ERROR_ARGUMENT, "%s: '%s' is not a number of 0 or more", flag, value ? value : "nothing");
}

static int take_text(const char *flag, const char *value, const char **out, struct error *error) {
  if (!value) return error_set(error, ERROR_ARGUMENT, "%s needs a value", flag);
  return *out = value, 2;
}

static int take_flag(struct job_command *job, const char *word, const char *value, struct error *error) {
  struct train_command *c = (struct train_command *)job;
  int64_t low, seed;
  int64_t *whole = whole_of(c, word, &low);
  if (whole) return job_command_number(word, value, low, INT64_MAX, whole, error) ? -1 : 2;
  if (!strcmp(word, "--rate") || !strcmp(word, "--lr")) return take_number(word, value, &c->args.rate, error);
  if (!strcmp(word, "--l1")) return take_number(word, value, &c->args.l1, error);
  if (!strcmp(word, "--aux")) return take_number(word, value, &c->args.aux, error);
  if (!strcmp(word, "--out")) return take_text(word, value, &c->args.out, error);
  if (!strcmp(word, "--kind")) return take_text(word, value, &c->args.kind, error);
  if (strcmp(word, "--seed") != 0) return 0;
  if (job_command_number(word, value, 0, ((int64_t)1 << 53) - 1, &seed, error) != 0) return -1;
  return c->args.seed = (uint64_t)seed, 2;
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
  printf("%s: %lld features of %s, trained on %lld tokens in %lld steps\n", found->folder, (long long)found->features, found->point,
         (long long)found->tokens, (long long)found->steps);
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

static int train(struct job_command *job, struct options *options, struct error *error) {
  struct train_command *c = (struct train_command *)job;
  struct lab_options settings;
  struct lab_train_found found;
  struct arena arena;
  if (lab_settings(options, &settings, error)) return -1;
  settings.store = NULL; /* nothing of it is kept there */
  if (!c->args.out) return error_set(error, ERROR_ARGUMENT, "train needs --out FOLDER: where the dictionary goes");
  struct lab *lab = job_command_open(job, &settings, error);
  if (!lab) return -1;
  c->args.model_id = job->model_id;
  c->args.point = job->source_id;
  c->args.corpus = job->corpus;
  c->args.lines = job->lines;
  c->args.max_tokens = job->max_tokens;
  arena_init(&arena, 0);
  int failed = lab_train_run(lab, &c->args, tell, NULL, &arena, &found, error);
  progress_end();
  if (!failed) print(lab_find_model(lab, job->model_id, NULL), c, &found);
  arena_clear(&arena);
  lab_close(lab);
  return failed;
}

int run_train(int argc, char **argv) {
  static const char *const flags[] = {"out", "kind", "features", "expansion", "k", "steps", "tokens", "batch", "context", "buffer", "rate", "lr",
                                      "seed", "l1", "l1-warm-up", "aux", "dead-after", "warm-up", "decay"};
  struct train_command command = {.job = {.verb = "train", .help = help_train, .take_flag = take_flag, .flags = flags,
                                          .n_flags = sizeof flags / sizeof *flags, .run = train, .subject = "POINT"},
                                  .args = LAB_TRAIN_DEFAULTS};
  return job_command_main(&command.job, argc, argv);
}
