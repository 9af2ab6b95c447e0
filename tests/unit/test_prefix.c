/* What is remembered of earlier texts: it spares what it should, and never changes a bit of an answer. Every request is also asked of an
 * engine that remembers nothing. A context of 160 positions is two whole blocks and a half. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/digest.h"
#include "core/base/random.h"
#include "core/engine/engine.h"
#include "core/engine/kv.h"
#include "tests/unit/vectors.h"

#define MOST_NEW 100
#define MOST_SEQUENCES 4

/* ---- names of contents ---- */

/* `openssl mac -macopt hexkey:000102030405060708090a0b0c0d0e0f -macopt size:16 -in FILE SIPHASH` of bytes 0, 1, 2, ... mod 256 */
static const struct {
  size_t n;
  struct digest want;
} siphash[] = {{0, {{0xe6a825ba047f81a3u, 0x930255c71472f66du}}}, {1, {{0x44af996bd8c187dau, 0x45fc229b11597634u}}},
               {7, {{0x53c1dbd8beebf1a1u, 0x3982f01fa64ab8c0u}}}, {8, {{0x61f55862baa9623bu, 0xb49714f364e2830fu}}},
               {15, {{0x11a8b03399e99354u, 0xd9c3cf970fec087eu}}}, {64, {{0x3fcdd4c07d07af1eu, 0x4ba75836384dad8cu}}},
               {1000, {{0x863de09a78fada24u, 0xa60b2f37574b6a53u}}}};

static void test_digest(void **state) {
  (void)state;
  const uint64_t key[2] = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u};
  unsigned char bytes[1000];
  for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)i;
  for (size_t t = 0; t < sizeof siphash / sizeof *siphash; t++)
    for (size_t cut = 0; cut <= siphash[t].n; cut += 1 + siphash[t].n / 10) { /* in two pieces: the same */
      struct digester digester;
      digest_begin(&digester, key);
      digest_add(&digester, bytes, cut);
      digest_add(&digester, bytes + cut, siphash[t].n - cut);
      assert_true(digest_equal(digest_end(&digester), siphash[t].want));
    }
}

/* ---- two engines ---- */

struct world {
  struct backend *backend;
  struct model *model;
  struct engine *engine;
};

static struct world plain, kept;

static void open_engine(struct world *w, size_t kv_bytes, bool remember) {
  struct error error = ERROR_INIT;
  struct engine_options options = {.max_queue = 64, .max_sessions = 8, .max_step_rows = 48, .kv_bytes = kv_bytes, .remember = remember};
  const struct model *model = w->model;
  w->engine = engine_new(w->backend, &model, 1, &options, &error);
  if (!w->engine) fail_msg("%s", error.text);
}

static void open_world(struct world *w, size_t kv_bytes, bool remember) {
  struct error error = ERROR_INIT;
  w->backend = backend_open("cpu", 1, &error);
  if (!w->backend) fail_msg("%s", error.text);
  w->model = model_open("tiny", "tests/vectors/tiny-gpt2/model", w->backend, &error);
  if (!w->model) fail_msg("%s", error.text);
  open_engine(w, kv_bytes, remember);
}

static void close_world(struct world *w) {
  engine_free(w->engine);
  model_close(w->model);
  backend_close(w->backend);
}

static size_t sequences_bytes(size_t n) { return n * kv_sequence_bytes(plain.model, 160); }

static int open_worlds(void **state) {
  (void)state;
  open_world(&plain, (size_t)1 << 25, false);
  open_world(&kept, (size_t)1 << 25, true);
  return 0;
}

static int close_worlds(void **state) {
  (void)state;
  close_world(&plain);
  close_world(&kept);
  return 0;
}

/* A test begins with nothing remembered. */
static void forget_all(size_t kv_bytes) {
  engine_free(kept.engine);
  open_engine(&kept, kv_bytes ? kv_bytes : (size_t)1 << 25, true);
}

static struct engine_stats stats(const struct world *w) {
  struct engine_stats out;
  engine_stats(w->engine, &out);
  return out;
}

/* ---- requests ---- */

enum edit_shape { NO_EDIT, ADDED, SCALED, GIVEN_ROWS, ADDED_BEFORE, PATTERN_FILLED };

/* One edit at resid_post of a layer, or at resid_pre. */
struct change {
  enum edit_shape shape;
  int32_t layer;
  float value;
  int32_t begin, end; /* prompt positions; end 0: all of them */
  bool generated;
  int32_t vector; /* which one */
};

struct request {
  int32_t n_tokens, parts_at, text; /* tokens behind position parts_at are those of text `text`, those before are everybody's */
  int32_t max_new;
  struct change changes[MOST_SEQUENCES]; /* one a sequence */
  int n_sequences; /* 0: one */
  bool fork, twins, in_turn, background, all_logits;
  const int32_t *tokens; /* NULL: as above */
};

struct answer {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  bool done;
  struct error error;
  float *logits[MOST_SEQUENCES]; /* of the last row that had any */
  size_t width;
  int32_t tokens[MOST_SEQUENCES][MOST_NEW], n_tokens[MOST_SEQUENCES];
  float logprobs[MOST_SEQUENCES][MOST_NEW];
};

static bool on_token(void *context, int sequence, const struct engine_token *token) {
  struct answer *answer = context;
  int32_t at = answer->n_tokens[sequence]++;
  answer->tokens[sequence][at] = token->token;
  answer->logprobs[sequence][at] = token->logprob;
  return true;
}

static int on_logits(void *context, int sequence, int32_t position, int32_t n_rows, struct rows logits, struct backend *backend,
                     struct error *error) {
  struct answer *answer = context;
  (void)position;
  size_t bytes = answer->width * sizeof(float);
  if (!answer->logits[sequence]) answer->logits[sequence] = malloc(bytes);
  struct span last = span_at(logits.at, (size_t)(n_rows - 1) * (size_t)logits.ld * sizeof(float));
  return backend->ops->read(backend, answer->logits[sequence], last, bytes, error);
}

static void on_done(void *context, const struct error *error) {
  struct answer *answer = context;
  pthread_mutex_lock(&answer->mutex);
  if (error) answer->error = *error;
  answer->done = true;
  pthread_cond_signal(&answer->changed);
  pthread_mutex_unlock(&answer->mutex);
}

static const struct engine_events events = {.token = on_token, .logits = on_logits, .done = on_done};

static void fill_tokens(const struct request *r, int32_t *tokens) {
  for (int32_t i = 0; i < r->n_tokens; i++)
    tokens[i] = r->tokens ? r->tokens[i] : (i * 37 + 11 + (i >= r->parts_at ? (i + 1) * r->text : 0)) % 512;
}

static struct edit_list *edits_of(const struct change *change, int32_t n_tokens, int32_t width) {
  struct error error = ERROR_INIT;
  uint8_t mask[256] = {0};
  float v[256 * 256];
  if (change->shape == NO_EDIT) return NULL;
  struct edit_list *list = edit_list_new(&error);
  for (int32_t i = 0; i < (change->shape == GIVEN_ROWS ? 256 : 1) * width; i++) v[i] = (float)((i + change->vector) % 17) / 17;
  for (int32_t i = change->begin; i < change->end; i++) mask[i] = 1;
  struct edit edit = {.point = {change->layer, change->shape == ADDED_BEFORE ? SITE_RESID_PRE : SITE_RESID_POST}, .kind = EDIT_ROW_ADD, .column_end = width, .value = change->value,
                      .v = v, .prompt = true, .generated = change->generated};
  if (change->end) edit.mask = mask, edit.n_mask = n_tokens;
  if (change->shape == SCALED) edit.kind = EDIT_ROW_SCALE, edit.v = NULL;
  if (change->shape == GIVEN_ROWS) edit.kind = EDIT_ROW_REPLACE;
  if (change->shape == PATTERN_FILLED) /* columns 280 to 290: which head's, and which keys', depends on how many keys there are */
    edit = (struct edit){.point = {change->layer, SITE_PATTERN}, .kind = EDIT_ROW_FILL, .column_begin = 280, .column_end = 290,
                         .value = change->value, .prompt = true};
  assert_int_equal(edit_list_add(list, &edit, &error), 0);
  return list;
}

static void ask(struct world *w, const struct request *r, struct answer *answer) {
  struct error error = ERROR_INIT;
  int32_t tokens[256];
  struct engine_sequence sequences[MOST_SEQUENCES] = {0};
  int n = r->n_sequences ? r->n_sequences : 1;
  *answer = (struct answer){.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER,
                            .width = (size_t)w->model->arch.vocabulary};
  fill_tokens(r, tokens);
  for (int i = 0; i < n; i++)
    sequences[i] = (struct engine_sequence){
        .tokens = tokens, .n_tokens = r->n_tokens, .last_layer = w->model->arch.n_layer, .eos = -1, .max_new = r->max_new,
        .edits = edits_of(&r->changes[i], r->n_tokens, w->model->arch.d_model), .fork = r->fork && i > 0, .twin = r->twins && i > 0,
        .logits = r->max_new ? LOGITS_NONE : r->all_logits ? LOGITS_ALL : LOGITS_LAST,
        .sampling = {.temperature = 0.7f, .top_p = 1, .seed = 5, .stream = (uint64_t)i}};
  struct engine_task_args args = {.model = w->model, .sequences = sequences, .n_sequences = n, .events = &events, .context = answer,
                                  .in_turn = r->in_turn, .background = r->background};
  struct engine_task *task;
  if (engine_submit(w->engine, &args, &task, &error) != 0) fail_msg("%s", error.text);
}

static void wait_for(struct answer *answer) {
  pthread_mutex_lock(&answer->mutex);
  while (!answer->done) pthread_cond_wait(&answer->changed, &answer->mutex);
  pthread_mutex_unlock(&answer->mutex);
  if (answer->error.code) fail_msg("%s", answer->error.text);
}

static void answer_free(struct answer *answer) {
  for (int i = 0; i < MOST_SEQUENCES; i++) free(answer->logits[i]);
}

static void compare(const struct answer *a, const struct answer *b) {
  for (int i = 0; i < MOST_SEQUENCES; i++) {
    assert_int_equal(a->n_tokens[i], b->n_tokens[i]);
    assert_memory_equal(a->tokens[i], b->tokens[i], (size_t)a->n_tokens[i] * sizeof **a->tokens);
    assert_memory_equal(a->logprobs[i], b->logprobs[i], (size_t)a->n_tokens[i] * sizeof **a->logprobs);
    assert_true(!a->logits[i] == !b->logits[i]);
    if (a->logits[i]) assert_memory_equal(a->logits[i], b->logits[i], a->width * sizeof(float));
  }
}

/* Asks both; the tokens that the one that remembers did not read. `answer`: NULL, or where its answer is put. */
static int64_t spared_by(const struct request *r, struct answer *answer) {
  struct answer one, other;
  int64_t before = stats(&kept).spared_tokens;
  ask(&plain, r, &one);
  wait_for(&one);
  ask(&kept, r, &other);
  wait_for(&other);
  compare(&one, &other);
  int64_t spared = stats(&kept).spared_tokens - before;
  assert_int_equal(stats(&kept).kv_used_bytes, 0); /* what is remembered counts as free */
  answer_free(&one);
  if (answer) *answer = other;
  answer_free(&other);
  return spared;
}

/* ---- what is spared ---- */

static void test_the_same_again(void **state) {
  (void)state;
  forget_all(0);
  struct request r = {.n_tokens = 150};
  assert_int_equal(spared_by(&r, NULL), 0);
  assert_int_equal(spared_by(&r, NULL), 128);
  r.n_tokens = 128; /* the last row is computed, whatever is remembered */
  assert_int_equal(spared_by(&r, NULL), 64);
  r.n_tokens = 129;
  assert_int_equal(spared_by(&r, NULL), 128);
  r.n_tokens = 64;
  assert_int_equal(spared_by(&r, NULL), 0);
  struct request other = {.n_tokens = 150, .parts_at = 80, .text = 3};
  assert_int_equal(spared_by(&other, NULL), 64);
  assert_int_equal(spared_by(&other, NULL), 128);
  other.parts_at = 10;
  assert_int_equal(spared_by(&other, NULL), 0);
}

/* A chat's next turn begins with what was generated in the one before. */
static void test_what_was_generated(void **state) {
  (void)state;
  forget_all(0);
  struct request first = {.n_tokens = 70, .max_new = 60}, next = {.n_tokens = 150};
  struct answer answer;
  int32_t tokens[256];
  assert_int_equal(spared_by(&first, &answer), 0);
  fill_tokens(&first, tokens);
  memcpy(tokens + 70, answer.tokens[0], 60 * sizeof *tokens);
  for (int i = 130; i < 150; i++) tokens[i] = i;
  next.tokens = tokens;
  assert_int_equal(spared_by(&next, NULL), 128); /* 129 of the 130 were fed in */
}

static void test_edits(void **state) {
  (void)state;
  forget_all(0);
  const struct change added = {ADDED, 1, 3, .generated = true};
  struct request plain_one = {.n_tokens = 150}, edited = {.n_tokens = 150, .changes = {added}};
  assert_int_equal(spared_by(&edited, NULL), 0);
  assert_int_equal(spared_by(&plain_one, NULL), 0); /* an edited beginning serves nobody else */
  assert_int_equal(spared_by(&plain_one, NULL), 128);
  assert_int_equal(spared_by(&edited, NULL), 128);
  edited.changes[0].value = 3.0001f;
  assert_int_equal(spared_by(&edited, NULL), 0);
  edited.changes[0] = (struct change){ADDED, 2, 3, .end = 0};
  assert_int_equal(spared_by(&edited, NULL), 0);
  edited.changes[0] = (struct change){SCALED, 1, 3, .end = 0};
  assert_int_equal(spared_by(&edited, NULL), 0);
  edited.changes[0] = (struct change){ADDED, 1, 3, .vector = 1};
  assert_int_equal(spared_by(&edited, NULL), 0);
  edited.changes[0] = (struct change){ADDED_BEFORE, kept.model->arch.n_layer - 1, 3, .end = 0}; /* keys of the last layer alone */
  assert_int_equal(spared_by(&edited, NULL), 0);
  edited.changes[0] = (struct change){ADDED, 1, 3, .end = 0}; /* not of generated ones, which there are none of */
  assert_int_equal(spared_by(&edited, NULL), 128);
  edited.changes[0] = (struct change){ADDED, 1, 3, .begin = 100, .end = 101};
  assert_int_equal(spared_by(&edited, NULL), 64); /* the plain one's, up to the block that is touched */
  edited.changes[0].begin = 99;
  assert_int_equal(spared_by(&edited, NULL), 64);
  edited.changes[0] = (struct change){ADDED, 1, 3, .begin = 100, .end = 101};
  assert_int_equal(spared_by(&edited, NULL), 128);
  edited.n_tokens = 155; /* the mask names positions: the same ones */
  assert_int_equal(spared_by(&edited, NULL), 128);
}

static void test_what_has_no_name(void **state) {
  (void)state;
  forget_all(0);
  struct request given = {.n_tokens = 150, .changes = {{GIVEN_ROWS, 1, 0, .begin = 70, .end = 73}}};
  for (int i = 0; i < 3; i++) assert_int_equal(spared_by(&given, NULL), i ? 64 : 0);
}

/* Columns of a pattern are another head's and other keys' where a text has room for more. */
static void test_edits_of_patterns(void **state) {
  (void)state;
  forget_all(0);
  struct request r = {.n_tokens = 140, .changes = {{PATTERN_FILLED, 1, 0.5f, .end = 0}}};
  assert_int_equal(spared_by(&r, NULL), 0);
  r.max_new = 20;
  assert_int_equal(spared_by(&r, NULL), 0);
}

/* An edit of generated tokens alone: what is generated under it begins no plain text, and the next turn under it is its own. */
static void test_edits_of_what_is_generated(void **state) {
  (void)state;
  forget_all(0);
  struct request first = {.n_tokens = 70, .max_new = 60, .changes = {{ADDED, 1, 4, .begin = 155, .end = 156, .generated = true}}};
  struct request next = {.n_tokens = 150};
  struct answer answer;
  int32_t tokens[256];
  spared_by(&first, &answer);
  fill_tokens(&first, tokens);
  memcpy(tokens + 70, answer.tokens[0], 60 * sizeof *tokens);
  for (int i = 130; i < 150; i++) tokens[i] = i;
  next.tokens = tokens;
  assert_int_equal(spared_by(&next, NULL), 64);
  next.changes[0] = (struct change){ADDED, 1, 4, .begin = 70, .end = 150};
  assert_int_equal(spared_by(&next, NULL), 128);
}

static void test_forks(void **state) {
  (void)state;
  forget_all(0);
  struct request r = {.n_tokens = 150, .max_new = 5, .n_sequences = 2, .fork = true, .changes = {{.shape = NO_EDIT}, {ADDED, 2, 3, .generated = true}}};
  assert_int_equal(spared_by(&r, NULL), 0);
  assert_int_equal(spared_by(&r, NULL), 128); /* side by side from there on: counted once */
  r.changes[1].value = 2;
  assert_int_equal(spared_by(&r, NULL), 128); /* the edited one reads for itself, the plain one goes on */
  struct request edited = {.n_tokens = 150, .changes = {r.changes[1]}};
  assert_int_equal(spared_by(&edited, NULL), 128);
  struct request three = {.n_tokens = 150, .max_new = 5, .n_sequences = 3, .fork = true,
                          .changes = {{.shape = NO_EDIT}, {ADDED, 2, 3, .generated = true}, {SCALED, 0, 0.5f, .end = 0}}};
  assert_int_equal(spared_by(&three, NULL), 256); /* two are remembered */
  forget_all(0);
  r.parts_at = 64, r.text = 5;
  spared_by(&(struct request){.n_tokens = 150}, NULL);
  assert_int_equal(spared_by(&r, NULL), 0); /* one block is less than following is worth: 86 x 3 + 150 x 3 rows of a layer, or 150 x (3 + 1) */
}

static void test_twins(void **state) {
  (void)state;
  forget_all(0);
  struct request r = {.n_tokens = 140, .max_new = 20, .n_sequences = 3, .twins = true};
  assert_int_equal(spared_by(&r, NULL), 0);
  assert_int_equal(spared_by(&r, NULL), 128);
}

static void test_who_takes_no_part(void **state) {
  (void)state;
  forget_all(0);
  struct request all = {.n_tokens = 150, .all_logits = true}, turns = {.n_tokens = 150, .in_turn = true};
  struct request background = {.n_tokens = 150, .background = true}, one = {.n_tokens = 150};
  spared_by(&turns, NULL);
  spared_by(&background, NULL);
  assert_int_equal(spared_by(&one, NULL), 0); /* they leave nothing */
  assert_int_equal(spared_by(&turns, NULL), 0);
  assert_int_equal(spared_by(&background, NULL), 0);
  assert_int_equal(spared_by(&all, NULL), 0);
  assert_int_equal(spared_by(&one, NULL), 128);
}

/* ---- memory ---- */

static void test_the_oldest_goes_first(void **state) {
  (void)state;
  forget_all(sequences_bytes(2)); /* six blocks of every layer */
  struct request a = {.n_tokens = 150}, b = {.n_tokens = 150, .text = 1}, c = {.n_tokens = 150, .text = 2};
  spared_by(&a, NULL);
  spared_by(&b, NULL);
  assert_int_equal(spared_by(&a, NULL), 128); /* two blocks each, and one of either's end that nobody needs */
  spared_by(&c, NULL);                        /* takes the two that are free, and the ends of b */
  assert_int_equal(spared_by(&a, NULL), 128);
  assert_int_equal(spared_by(&b, NULL), 64);
}

/* Everything at random, also side by side, in a pool that holds little: the bits are those of an engine that remembers nothing. */
static struct request any_request(uint64_t n) {
  uint32_t w[4], x[4];
  random_words(7, 1, n, w);
  random_words(7, 2, n, x);
  struct request r = {.n_tokens = 60 + (int32_t)(w[0] % 60), .parts_at = (int32_t)(w[1] % 3) * 50, .text = (int32_t)(w[2] % 3),
                      .max_new = (int32_t)(w[3] % 3) * 20};
  r.n_sequences = x[0] % 4 == 0 ? 2 : 1;
  r.fork = r.n_sequences == 2 && x[0] % 8 == 0;
  r.twins = r.n_sequences == 2 && !r.fork && r.max_new > 0;
  for (int i = r.fork; i < r.n_sequences; i++)
    r.changes[i] = (struct change){(enum edit_shape)(x[1] % 5), (int32_t)(x[2] % 3), (float)(x[3] % 2) + 0.5f,
                                   .begin = x[3] % 5 == 0 ? 65 : 0, .end = x[3] % 5 == 0 || x[1] % 5 == GIVEN_ROWS ? 67 : 0,
                                   .generated = x[3] % 7 > 2};
  return r;
}

static void test_anything(void **state) {
  (void)state;
  enum { AT_ONCE = 4, ROUNDS = 30 };
  forget_all(sequences_bytes(5));
  for (uint64_t round = 0; round < ROUNDS; round++) {
    struct answer one[AT_ONCE], other[AT_ONCE];
    struct request r[AT_ONCE];
    for (uint64_t i = 0; i < AT_ONCE; i++) r[i] = any_request(round * AT_ONCE + i);
    for (int i = 0; i < AT_ONCE; i++) ask(&plain, &r[i], &one[i]);
    for (int i = 0; i < AT_ONCE; i++) wait_for(&one[i]);
    for (int i = 0; i < AT_ONCE; i++) ask(&kept, &r[i], &other[i]);
    for (int i = 0; i < AT_ONCE; i++) {
      wait_for(&other[i]);
      compare(&one[i], &other[i]);
      answer_free(&one[i]);
      answer_free(&other[i]);
    }
  }
  struct engine_stats s = stats(&kept);
  assert_int_equal(s.kv_used_bytes, 0);
  assert_true(s.spared_tokens > s.prompt_tokens / 10);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_digest), cmocka_unit_test(test_the_same_again), cmocka_unit_test(test_what_was_generated),
      cmocka_unit_test(test_edits), cmocka_unit_test(test_what_has_no_name), cmocka_unit_test(test_edits_of_patterns), cmocka_unit_test(test_edits_of_what_is_generated),
      cmocka_unit_test(test_forks), cmocka_unit_test(test_twins), cmocka_unit_test(test_who_takes_no_part),
      cmocka_unit_test(test_the_oldest_goes_first), cmocka_unit_test(test_anything),
  };
  return cmocka_run_group_tests(tests, open_worlds, close_worlds);
}
