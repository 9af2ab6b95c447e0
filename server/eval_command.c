/* eval_command.c: `steerd eval`: its flags, and its figures as text. */
#include "server/eval_command.h"

#include <stdio.h>
#include <string.h>

#include "server/job_command.h"
#include "server/lab_settings.h"
#include "server/progress.h"

void help_eval(void) {
  puts("steerd eval MODEL SOURCE --corpus FILE [--lines] [--ends] [--model [ID=]PLACE] [--source MODEL/SOURCE=PLACE] [--store FILE] ...\n\n"
       "Runs a dictionary over a text and prints how many features fire, how much of the rows it explains, and what the\n"
       "model still predicts with the reconstruction in their place. With --store FILE the figures are kept there too.\n\n"
       "MODEL is the ID of a --model and SOURCE a --source of it. Without --model and --source it is the demo that comes with\n"
       "steerd: MODEL is demo, SOURCE one of its dictionaries.\n\n"
       "  --corpus FILE      a UTF-8 text; the only flag that is needed\n"
       "  --lines            the text is cut at every newline (n newlines, n + 1 documents, empty ones too); else at the context\n"
       "  --ends             the end of each document is predicted too (the model's EOS)\n"
       "  --max-tokens N     stop with the document that reaches so many tokens; it is read to its end (0: the whole text)\n\n"
       "SOURCE may be a layer of a cross-layer transcoder: it is evaluated with the layers below it, which need a --source each.\n\n"
       "Every setting of 'steerd serve' works too (--model, --source, --store, --threads ...).");
}

/* ---- arguments ---- */

struct eval_command {
  struct job_command job; /* first */
  bool ends;
};

static int take_flag(struct job_command *job, const char *word, const char *value, struct error *error) {
  (void)value;
  (void)error;
  if (strcmp(word, "--ends") != 0) return 0;
  return ((struct eval_command *)job)->ends = true, 1;
}

/* ---- the verb ---- */

static void print(const struct job_command *command, const struct store_evaluation *e) {
  double gap = e->ce_zero - e->ce_raw;
  printf("%s/%s over %s: %lld documents, %lld counted positions\n\n", command->model_id, command->source_id,
         e->corpus, (long long)e->n_documents, (long long)e->n_tokens);
  printf("  features a position (L0)         %.5g of %lld\n", e->l0, (long long)e->n_features);
  printf("  squared error a position (MSE)   %.6g   sum over the width\n", e->mse);
  printf("  explained variance (EV)          %.6f   1 - sum |y - x^|^2 / sum |y - mean y|^2\n", e->explained);
  printf("  unexplained (FVU)                %.6f   1 - EV\n", 1 - e->explained);
  printf("  cosine of rows                   %.6f   mean of <y, x^> / (|y| |x^|)\n", e->cosine);
  printf("  ratio of lengths (L2)            %.6f   mean of |x^| / |y|\n", e->l2_ratio);
  printf("  relative reconstruction bias     %.6f   sum |x^|^2 / sum <y, x^>\n\n", e->bias);
  printf("  cross-entropy over %lld predicted tokens, nats\n", (long long)e->n_predicted);
  printf("    the model as it is             %.6f\n", e->ce_raw);
  printf("    through the dictionary         %.6f\n", e->ce_spliced);
  printf("    with its error put back        %.6f\n", e->ce_error);
  printf("    zeros in its place             %.6f\n", e->ce_zero);
  printf("    share kept                     %.5f   (zero - through) / (zero - raw)\n\n",
         gap != 0 ? (e->ce_zero - e->ce_spliced) / gap : 0);
  printf("  divergence (KL) from the model's own predictions, nats\n");
  printf("    through the dictionary         %.6f\n", e->kl_spliced);
  printf("    zeros in its place             %.6f\n", e->kl_zero);
  printf("    share kept                     %.5f   (zero - through) / zero\n\n", e->kl_zero > 0 ? (e->kl_zero - e->kl_spliced) / e->kl_zero : 0);
  printf("  features that never fire         %lld\n", (long long)e->n_dead);
  printf("  that fire at less than 10 %%, 1 %%, 0.1 %%, 0.01 %% of the positions   %lld, %lld, %lld, %lld\n",
         (long long)e->below[0], (long long)e->below[1], (long long)e->below[2], (long long)e->below[3]);
}

static void print_layers(const struct lab_eval_found *found) {
  if (!found->n_layers) return;
  printf("\n  layers that are replaced together: the features of each, and its output, which all layers up to it write\n");
  printf("    layer   source              L0       EV         FVU        MSE          never fire\n");
  for (size_t i = 0; i < found->n_layers; i++) {
    const struct lab_eval_layer *layer = &found->layers[i];
    printf("    %-7d %-17s %8.5g   %.6f   %.6f   %-10.6g   %lld of %lld\n", layer->layer, layer->source_id, layer->l0, layer->explained,
           1 - layer->explained, layer->mse, (long long)layer->n_dead, (long long)layer->n_features);
  }
}

static int evaluate(struct job_command *job, struct options *options, struct error *error) {
  struct lab_options settings;
  struct lab_eval_found found = {0};
  struct arena arena;
  if (lab_settings(options, &settings, error)) return -1;
  struct lab *lab = job_command_open(job, &settings, error);
  if (!lab) return -1;
  struct lab_eval_args args = {.model_id = job->model_id, .source_id = job->source_id, .corpus = job->corpus,
                               .lines = job->lines, .max_tokens = job->max_tokens,
                               .ends = ((const struct eval_command *)job)->ends};
  arena_init(&arena, 0);
  int failed = lab_eval_run(lab, &args, progress_tell, NULL, &arena, &found, error);
  progress_end();
  if (!failed) {
    print(job, &found.evaluation);
    print_layers(&found);
  }
  arena_clear(&arena);
  lab_close(lab);
  return failed;
}

int run_eval(int argc, char **argv) {
  static const char *const flags[] = {"ends"};
  struct eval_command command = {
      .job = {.verb = "eval", .help = help_eval, .take_flag = take_flag, .flags = flags, .n_flags = 1, .run = evaluate}};
  return job_command_main(&command.job, argc, argv);
}
