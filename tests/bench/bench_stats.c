/* bench_stats: the counting phase of `steerd stats`, beside the matrix-product limit of the same minute.
 *
 *   bench_stats FOLDER [ROWS]   a GPT-2-family folder with the dictionary FOLDER/sources/7-res-jb (make bench generates
 *                               both); ROWS: positions of a task and a step, default 256 as the daemon has it
 *
 * Documents of 128 tokens, 20 examples at the top and 2 in each interval. Inside the window: from the first to the last
 * completed task of a round (start and stop of a run are left out), so it is the whole of reading tokens, blocks, taps,
 * encoding and upkeep. The limit is the f32 multiply-add peak over the products a token needs: the blocks below the
 * dictionary, attention over half of 128 positions, the encoder. Rounds alternate with measurements of the limits; medians.
 * A short text is the worst case for upkeep: lists of examples are not full yet, and every firing changes one. */
#include "core/analysis/statistics_run.h"
#include "core/base/log.h"
#include "tests/bench/limits.h"

#define SOURCE_ID "7-res-jb"
#define ROUNDS 5
#define ROUND_SECONDS 2.5
#define TEXT_BYTES (1 << 20) /* one token a byte with the synthetic vocabulary: more than any machine counts in that time */
#define CONTEXT 128

static void check(int failed, const struct error *error) {
  if (!failed) return;
  fprintf(stderr, "bench_stats: %s\n", error->text);
  exit(1);
}

/* Bytes of a field of /proc/self/status. */
static double status_mib(const char *field) {
  char line[256];
  double kib = 0;
  FILE *file = fopen("/proc/self/status", "r");
  while (file && fgets(line, sizeof line, file))
    if (!strncmp(line, field, strlen(field))) kib = strtod(line + strlen(field) + 1, NULL);
  if (file) fclose(file);
  return kib / 1024;
}

/* Words of letters drawn at random; unlinked when it is closed. */
static void write_text(char *path) {
  int fd = mkstemp(path);
  FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
  if (!file) {
    perror("bench_stats");
    exit(1);
  }
  uint32_t state = 1;
  for (int i = 0; i < TEXT_BYTES; i++) {
    state = state * 1664525u + 1013904223u;
    uint32_t draw = state >> 16;
    fputc(draw % 6 == 0 ? ' ' : (int)('a' + draw / 6 % 26), file);
  }
  fclose(file);
}

struct window {
  struct statistics *statistics;
  int64_t begin_ns, first_ns, last_ns;
  int64_t first_tokens, last_tokens;
};

static int on_progress(void *context, int64_t document) {
  (void)document;
  struct window *w = context;
  w->last_ns = clock_ns();
  w->last_tokens = statistics_tokens(w->statistics);
  if (!w->first_ns) {
    w->first_ns = w->last_ns;
    w->first_tokens = w->last_tokens;
  }
  return limits_seconds(w->begin_ns) > ROUND_SECONDS;
}

static double flop_a_token(const struct model *model, const struct dict_info *info) {
  double d = (double)model->arch.d_model, blocks = info->in.layer + (info->in.site != SITE_RESID_PRE);
  double products = blocks * (4 * d * d + 2 * d * (double)model->arch.d_mlp);
  double attention = blocks * 2 * d * (CONTEXT + 1) / 2;
  return 2 * (products + attention + d * (double)info->n_feat);
}

int main(int argc, char **argv) {
  if (argc < 2) {
    printf("skip: bench_stats needs a model folder\n");
    return 0;
  }
  log_set_level(LOG_LEVEL_WARN);
  struct error error = ERROR_INIT;
  char dictionary[4096], text[] = "/tmp/steerd-bench-text-XXXXXX";
  int threads = bench_threads(), rows = argc > 2 ? atoi(argv[2]) : 256;
  snprintf(dictionary, sizeof dictionary, "%s/sources/" SOURCE_ID, argv[1]);
  struct backend *backend = backend_open("cpu", threads, &error);
  check(!backend, &error);
  struct model *model = model_open("model", argv[1], backend, &error);
  check(!model, &error);
  const struct arch *arch = &model->arch;
  struct dict_host host = {"gpt2-small", arch, NULL, NULL};
  struct dict *dict = dict_open(dictionary, SOURCE_ID, &host, backend, &error);
  check(!dict, &error);
  const struct dict_info *info = dict_info(dict);
  write_text(text);
  struct corpus_options cut = {.context = CONTEXT, .bos = info->prepend_bos};
  struct corpus *corpus = corpus_open(text, model->tokenizer, &cut, &error);
  unlink(text);
  check(!corpus, &error);
  struct statistics_options options = {.n_feat = info->n_feat, .n_top = 20, .n_quantile = 2, .window = 64,
                                       .positions = info->positions};
  struct statistics *statistics = statistics_new(&options, &error);
  check(!statistics, &error);
  struct engine_options engine_options = {.max_queue = 4, .max_sessions = 16, .max_step_rows = rows};
  struct engine *engine = engine_new(backend, (const struct model *const *)&model, 1, &engine_options, &error);
  check(!engine, &error);
  struct window window = {.statistics = statistics};
  struct statistics_run run = {.engine = engine, .model = model, .dict = dict, .corpus = corpus, .statistics = statistics,
                               .max_sequences = 8, .max_rows = rows, .progress = on_progress, .context = &window};
  struct pool *pool = pool_new(threads, &error); /* of the limit; limits_open would add 256 MiB to the memory */
  check(!pool, &error);
  double opened = status_mib("VmRSS"), flop = flop_a_token(model, info), rate[ROUNDS], share[ROUNDS], peak[ROUNDS], upkeep[ROUNDS];
  for (int r = 0; r < ROUNDS; r++) {
    double before = limits_fma(pool);
    window.first_ns = 0;
    window.begin_ns = clock_ns();
    check(statistics_run(&run, &error) < 0, &error);
    double seconds = limits_seconds(window.begin_ns), after = limits_fma(pool);
    peak[r] = (before + after) / 2;
    rate[r] = (double)(window.last_tokens - window.first_tokens) / ((double)(window.last_ns - window.first_ns) * 1e-9);
    share[r] = rate[r] * flop / (peak[r] * 1e9);
    upkeep[r] = run.upkeep_seconds / seconds;
  }
  int64_t fired = 0;
  for (int64_t f = 0; f < info->n_feat; f++) {
    struct statistics_feature feature;
    statistics_feature(statistics, f, &feature);
    fired += feature.n_fired;
  }
  printf("%lld features at %s, %d threads, %d rows a task, %.0f MFLOP a token, %.0f features fire at a token\n",
         (long long)info->n_feat, SOURCE_ID, threads, rows, flop * 1e-6,
         (double)fired / (double)statistics_tokens(statistics));
  double median_rate = limits_median(rate, ROUNDS), median_peak = limits_median(peak, ROUNDS);
  printf("counting  %8.0f tok/s  %5.1f %% of %.0f (%.0f GFLOP/s; goal 74 %%)\n", median_rate,
         100 * limits_median(share, ROUNDS), median_peak * 1e9 / flop, median_peak);
  printf("upkeep    %8.2f %% of the time, beside the engine, over %lld tokens in all (goal 2 %%)\n",
         100 * limits_median(upkeep, ROUNDS), (long long)statistics_tokens(statistics));
  printf("memory    %8.0f MiB at most, %.0f of it once model and dictionary were there\n", status_mib("VmHWM"), opened);
  pool_free(pool);
  engine_free(engine);
  statistics_free(statistics);
  corpus_close(corpus);
  dict_close(dict);
  model_close(model);
  backend_close(backend);
  return 0;
}
