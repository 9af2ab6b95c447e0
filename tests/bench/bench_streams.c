/* bench_streams: prompts and streams of a model apart, through the front door, as peers print them (peer_llama.py).
 *
 *   bench_streams FOLDER PROMPT:NEW:STREAMS ...        e.g. 512:32:1 16:32:8
 *
 * Each case is a line of JSON: seconds and processor seconds until every stream has its first token, and from there
 * until all have NEW more. Streams have different texts; drawing is greedy; what the house does between steps is
 * part of it. A step has up to 512 rows. Nothing is warmed up but by a short case in front. */
#include <sys/resource.h>

#include "core/base/log.h"
#include "core/core.h"
#include "tests/bench/limits.h"
#include "tests/unit/lab_waiter.h"

#define MAX_STREAMS 64
#define MAX_PROMPT 8192

struct moment {
  int64_t wall;
  double processor;
  int64_t made; /* new tokens of all streams */
};

struct measured {
  int prompt, fresh, streams;
  struct lab_job *job[MAX_STREAMS];
};

static void check(int failed, const struct error *error) {
  if (!failed) return;
  fprintf(stderr, "bench_streams: %s\n", error->text);
  exit(1);
}

static double processor_seconds(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/* A token a character with a synthetic vocabulary, and BOS in front; every stream has its own first letters. */
static void start_stream(struct lab *lab, const struct lab_model_info *model, struct measured *m, int stream) {
  static char text[MAX_PROMPT];
  struct error error = ERROR_INIT;
  int length = m->prompt - model->prepends_bos;
  for (int i = 0; i < length; i++) text[i] = (char)('a' + (i * 7 + i / 26 + (stream + 1) * (1 + i % 3)) % 26);
  struct lab_steer_args args = {.model = model, .prompt = text, .prompt_length = (size_t)length, .strength_multiplier = 1,
                                .steer_special_tokens = true, .n_tokens = m->fresh + 1, .top_p = 1, .n_logprobs = -1,
                                .want = {[LAB_DEFAULT] = true}};
  check(lab_steer(lab, &args, waker, &m->job[stream], &error), &error);
}

/* Whether all streams have at least `least` tokens. */
static bool have_all(const struct measured *m, int64_t least, int64_t *made) {
  bool all = true;
  *made = 0;
  for (int i = 0; i < m->streams; i++) {
    int64_t prompt, fresh;
    lab_job_usage(m->job[i], &prompt, &fresh);
    *made += fresh;
    all = all && fresh >= least;
  }
  return all;
}

static void must_run(const struct measured *m) {
  for (int i = 0; i < m->streams; i++) {
    struct error error;
    if (lab_job_state(m->job[i]) != LAB_JOB_FAILED) continue;
    lab_job_error(m->job[i], &error);
    check(1, &error);
  }
}

/* Sleeps until all streams have so many tokens. */
static struct moment wait_until(const struct measured *m, int64_t least) {
  struct moment moment;
  for (;;) {
    pthread_mutex_lock(&waiter.mutex);
    int seen = waiter.wakes;
    pthread_mutex_unlock(&waiter.mutex);
    must_run(m);
    if (have_all(m, least, &moment.made)) break;
    pthread_mutex_lock(&waiter.mutex);
    while (waiter.wakes == seen) pthread_cond_wait(&waiter.changed, &waiter.mutex);
    pthread_mutex_unlock(&waiter.mutex);
  }
  moment.wall = clock_ns();
  moment.processor = processor_seconds();
  return moment;
}

static void run_case(struct lab *lab, const struct lab_model_info *model, struct measured *m, bool print) {
  struct moment begin = {clock_ns(), processor_seconds(), 0};
  for (int i = 0; i < m->streams; i++) start_stream(lab, model, m, i);
  struct moment first = wait_until(m, 1), last = wait_until(m, m->fresh + 1);
  for (int i = 0; i < m->streams; i++) {
    wait_for(m->job[i]);
    lab_job_free(m->job[i]);
  }
  if (!print) return;
  printf("{\"pp\": %d, \"tg\": %d, \"pl\": %d, \"t_pp\": %.6f, \"cpu_pp\": %.6f, \"n_tg\": %lld, \"t_tg\": %.6f, \"cpu_tg\": %.6f}\n",
         m->prompt, m->fresh, m->streams, (double)(first.wall - begin.wall) * 1e-9, first.processor - begin.processor,
         (long long)(last.made - first.made), (double)(last.wall - first.wall) * 1e-9, last.processor - first.processor);
  fflush(stdout);
}

int main(int argc, char **argv) {
  if (argc < 3) {
    printf("skip: bench_streams needs a model folder and cases PROMPT:NEW:STREAMS\n");
    return 0;
  }
  log_set_level(LOG_LEVEL_WARN);
  struct lab_model_spec spec = {"bench", argv[1]};
  struct lab_options options = {.models = &spec, .n_models = 1, .threads = bench_threads(), .max_queue = MAX_STREAMS,
                                .max_step_rows = 512, .max_sessions = MAX_STREAMS};
  struct error error = ERROR_INIT;
  struct lab *lab = lab_open(&options, &error);
  check(!lab, &error);
  const struct lab_model_info *model = lab_find_model(lab, NULL, &error);
  struct measured warm = {.prompt = 16, .fresh = 1, .streams = 1};
  run_case(lab, model, &warm, false);
  for (int i = 2; i < argc; i++) {
    struct measured m = {0};
    if (sscanf(argv[i], "%d:%d:%d", &m.prompt, &m.fresh, &m.streams) != 3 || m.prompt < 2 || m.prompt > MAX_PROMPT ||
        m.fresh < 1 || m.streams < 1 || m.streams > MAX_STREAMS) {
      fprintf(stderr, "bench_streams: '%s' is not PROMPT:NEW:STREAMS (2..%d, from 1, 1..%d)\n", argv[i], MAX_PROMPT, MAX_STREAMS);
      return 1;
    }
    run_case(lab, model, &m, true);
  }
  lab_close(lab);
  return 0;
}
