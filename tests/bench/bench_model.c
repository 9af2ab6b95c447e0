/* bench_model: tokens a second of the whole model, through the front door, beside the limits of the same minute.
 *
 *   bench_model FOLDER        a GPT-2-family folder (make bench generates a GPT-2-small-shaped one)
 *
 * Prefill: texts of 128 and 512 tokens through every layer (an activations request at the last layer; the
 * unembedding is not part of it). Decode: 1, 8 and 16 streams of 48 new tokens from short prompts, prompts and sampling
 * included, with nothing attached and with one feature steered in every stream. Shares: prefill of the f32
 * multiply-add peak, decode of one stream of the read rate (weights read once a token). Rounds alternate, medians
 * are printed. */

#include "core/base/log.h"
#include "core/core.h"
#include "tests/bench/limits.h"
#include "tests/unit/lab_waiter.h"

#define ROUNDS 5
#define NEW_TOKENS 48
#define MAX_STREAMS 16

static void must_end(struct lab_job *job) {
  struct error error;
  if (wait_for(job) == LAB_JOB_DONE) return;
  lab_job_error(job, &error);
  fprintf(stderr, "bench_model: %s\n", error.text);
  exit(1);
}

static void check(int failed, const struct error *error) {
  if (!failed) return;
  fprintf(stderr, "bench_model: %s\n", error->text);
  exit(1);
}

/* One token a character with the synthetic vocabulary; BOS makes it `tokens`. */
static char *text_of(int tokens) {
  char *text = malloc((size_t)tokens);
  for (int i = 0; i + 1 < tokens; i++) text[i] = (char)('a' + (i * 7 + i / 26) % 26);
  text[tokens - 1] = '\0';
  return text;
}

static double prefill(struct lab *lab, const struct lab_model_info *model, const char *source, int tokens) {
  char *text = text_of(tokens);
  struct error error = ERROR_INIT;
  struct lab_text one = {text, strlen(text)};
  struct lab_activations_args args = {.model = model, .form = LAB_ONE_FEATURE, .source_ids = &source, .n_sources = 1,
                                      .texts = &one, .n_texts = 1, .n_results = 1};
  struct lab_job *job;
  int64_t from = clock_ns();
  check(lab_activations(lab, &args, waker, &job, &error), &error);
  must_end(job);
  double seconds = limits_seconds(from);
  lab_job_free(job);
  free(text);
  return tokens / seconds;
}

static double decode(struct lab *lab, const struct lab_model_info *model, const char *source, int streams, bool steer) {
  struct lab_job *jobs[MAX_STREAMS];
  struct error error = ERROR_INIT;
  struct lab_steer_feature feature = {source, 1, 4.0};
  struct lab_steer_args args = {.model = model, .prompt = "the ship", .prompt_length = 8, .strength_multiplier = 1,
                                .steer_special_tokens = true, .n_tokens = NEW_TOKENS, .top_p = 1, .n_logprobs = -1};
  args.want[steer ? LAB_STEERED : LAB_DEFAULT] = true;
  args.features = &feature;
  args.n_features = steer;
  int64_t from = clock_ns();
  for (int i = 0; i < streams; i++) check(lab_steer(lab, &args, waker, &jobs[i], &error), &error);
  for (int i = 0; i < streams; i++) must_end(jobs[i]);
  double seconds = limits_seconds(from);
  int64_t made = 0;
  for (int i = 0; i < streams; i++) {
    int64_t prompt, fresh;
    lab_job_usage(jobs[i], &prompt, &fresh);
    made += fresh;
    lab_job_free(jobs[i]);
  }
  return (double)made / seconds;
}

enum { PREFILL_128, PREFILL_512, DECODE_1, DECODE_1_STEERED, DECODE_8, DECODE_16, DECODE_16_STEERED, CASES };
static const char *const names[CASES] = {"prefill 128", "prefill 512", "decode 1 stream", "decode 1 stream, steered",
                                         "decode 8 streams", "decode 16 streams", "decode 16 streams, steered"};

static double run_case(struct lab *lab, const struct lab_model_info *model, const char *source, int which) {
  switch (which) {
    case PREFILL_128: return prefill(lab, model, source, 128);
    case PREFILL_512: return prefill(lab, model, source, 512);
    case DECODE_1: return decode(lab, model, source, 1, false);
    case DECODE_1_STEERED: return decode(lab, model, source, 1, true);
    case DECODE_8: return decode(lab, model, source, 8, false);
    case DECODE_16: return decode(lab, model, source, 16, false);
    default: return decode(lab, model, source, 16, true);
  }
}

/* What the hardware allows, in tokens a second: products of the blocks for prefill, weight bytes for decode. */
static double limit_of(const struct limits *limits, const struct lab_model_info *m, int which) {
  double block = (double)m->n_layer * (4.0 * (double)m->d_model * (double)m->d_model +
                                       2.0 * (double)m->d_model * (double)m->d_mlp);
  double all = block + (double)m->vocabulary * (double)m->d_model;
  if (which <= PREFILL_512) return limits->fma_all * 1e9 / (2 * block);
  double bytes = all * (strcmp(m->dtype, "F32") == 0 ? 4 : 2), streams = which <= DECODE_1_STEERED ? 1 : which == DECODE_8 ? 8 : 16;
  double by_memory = limits->read_all * 1e9 / bytes * streams, by_products = limits->fma_all * 1e9 / (2 * all);
  return by_memory < by_products ? by_memory : by_products;
}

int main(int argc, char **argv) {
  if (argc < 2) {
    printf("skip: bench_model needs a model folder\n");
    return 0;
  }
  log_set_level(LOG_LEVEL_WARN);
  char source_path[4096];
  snprintf(source_path, sizeof source_path, "%s/sources/last", argv[1]);
  struct lab_model_spec model_spec = {"bench", argv[1]};
  struct lab_source_spec source_spec = {"bench", "11-res-bench", source_path};
  struct lab_options options = {.models = &model_spec, .n_models = 1, .sources = &source_spec, .n_sources = 1,
                                .threads = bench_threads(), .max_queue = 64, .max_step_rows = 512, .max_sessions = 32};
  struct error error = ERROR_INIT;
  int64_t from = clock_ns();
  struct lab *lab = lab_open(&options, &error);
  check(!lab, &error);
  printf("open: %.2f s\n", limits_seconds(from));
  const struct lab_model_info *model = lab_find_model(lab, NULL, &error);
  struct limits limits;
  limits_open(&limits, options.threads);
  double values[CASES][ROUNDS];
  for (int r = 0; r < ROUNDS; r++)
    for (int c = 0; c < CASES; c++) values[c][r] = run_case(lab, model, "11-res-bench", c);
  limits_measure(&limits, 7);
  printf("%s, %d threads; read %.1f GB/s, multiply-add %.0f GFLOP/s\n", model->dtype, options.threads, limits.read_all,
         limits.fma_all);
  for (int c = 0; c < CASES; c++) {
    double median = limits_median(values[c], ROUNDS), limit = limit_of(&limits, model, c);
    printf("%-28s %8.1f tok/s  %5.1f %% of %.0f\n", names[c], median, 100 * median / limit, limit);
  }
  limits_close(&limits);
  lab_close(lab);
  return 0;
}
