/* token_score.c: the verb "token score": which features of a dictionary prefer some words of a text to the rest of it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/lab/experiment.h"
#include "core/lab/token_sets.h"

enum side { OFF, ON, LEFT_OUT };

struct tally {
  double sum[2]; /* OFF, ON */
  int64_t n[2];
};

struct score {
  struct experiment e;
  const struct dict *dict;
  struct point point;
  int64_t n_feat;
  uint8_t **side;       /* [n_texts][tokens] enum side */
  struct tally *tallies; /* [n_feat] */
  int top_k;
  struct lab_token_score_result result;
};

static struct score *score_of(struct experiment *e) { return (struct score *)e; }

static void clear(struct experiment *e) { free(score_of(e)->tallies); }

/* ---- while it runs ---- */

static void count_row(struct score *score, const struct sparse *codes, size_t row, enum side side) {
  for (size_t i = codes->start[row]; i < codes->start[row + 1]; i++) {
    struct tally *tally = &score->tallies[codes->index[i]];
    if (!(codes->value[i] > 0)) continue; /* of a neuron: it does not fire */
    tally->sum[side] += (double)codes->value[i];
    tally->n[side]++;
  }
}

static int on_tapped(struct experiment *e, int pass, const struct engine_tapped *tapped, struct error *error) {
  struct score *score = score_of(e);
  const uint8_t *side = score->side[pass] + tapped->position;
  struct sparse codes = {0};
  int failed = dict_encode(score->dict, tapped->rows, tapped->n_rows, &codes, error);
  for (int32_t i = 0; !failed && i < tapped->n_rows; i++)
    if (side[i] != LEFT_OUT) count_row(score, &codes, (size_t)i, side[i]);
  sparse_clear(&codes);
  return failed;
}

/* ---- the result ---- */

static double mean(const struct tally *tally, enum side side) { return tally->n[side] ? tally->sum[side] / (double)tally->n[side] : (double)NAN; }

static int by_score(const void *a, const void *b) {
  const struct lab_token_scored *x = a, *y = b;
  bool alone = !x->n_off, other_alone = !y->n_off;
  if (alone != other_alone) return alone ? -1 : 1;
  double p = alone ? x->mean_on : x->score, q = alone ? y->mean_on : y->score;
  if (p != q) return p > q ? -1 : 1;
  return x->index < y->index ? -1 : x->index > y->index;
}

static int finish(struct score *score, struct error *error) {
  size_t n = 0, most = (size_t)score->top_k;
  for (int64_t f = 0; f < score->n_feat; f++) n += score->tallies[f].n[ON] > 0;
  struct lab_token_scored *all = arena_array(&score->e.arena, n, sizeof *all, error);
  if (!all) return -1;
  n = 0;
  for (int64_t f = 0; f < score->n_feat; f++) {
    const struct tally *t = &score->tallies[f];
    if (!t->n[ON]) continue;
    double on = mean(t, ON), off = mean(t, OFF);
    all[n++] = (struct lab_token_scored){(int32_t)f, on / off, on, off, t->n[ON], t->n[OFF]};
  }
  qsort(all, n, sizeof *all, by_score);
  score->result.features = all;
  score->result.n_features = n < most ? n : most;
  return 0;
}

static int on_stage(struct experiment *e, int stage, struct error *error) {
  struct score *score = score_of(e);
  if (stage > 0) return finish(score, error);
  return experiment_tapped(e, &score->point, error);
}

static const struct experiment_verb verb = {.tapped = on_tapped, .stage = on_stage, .clear = clear};

/* ---- which positions ---- */

/* Every place where the ids stand behind each other; whether there is one. */
static bool mark(struct score *score, const int32_t *ids, size_t n) {
  bool found = false;
  for (size_t t = 0; t < score->e.n_texts; t++) {
    const struct lab_ids *text = &score->e.texts[t];
    for (size_t i = 0; n && i + n <= text->n; i++) {
      if (text->ids[i] != ids[0] || memcmp(text->ids + i, ids, n * sizeof *ids) != 0) continue;
      memset(score->side[t] + i, ON, n);
      found = true;
    }
  }
  return found;
}

static int mark_words(struct score *score, const struct lab_token_set *set, struct error *error) {
  struct arena *arena = &score->e.arena;
  const char **missing = arena_array(arena, set->n_words, sizeof *missing, error);
  if (!missing) return -1;
  for (size_t w = 0; w < set->n_words; w++) {
    char field[32];
    int32_t *ids;
    size_t n;
    snprintf(field, sizeof field, "words[%zu]", w);
    if (word_ids(score->e.model, set->words[w], set->prepend_space, field, arena, &ids, &n, error) != 0) return -1;
    if (!mark(score, ids, n)) missing[score->result.n_missing++] = set->words[w];
  }
  score->result.missing = missing;
  return 0;
}

static int check_id(int64_t id, size_t i, int32_t size, struct error *error) {
  char field[32];
  if (id >= 0 && id < size) return 0;
  snprintf(field, sizeof field, "ids[%zu]", i);
  return error_set_field(error, ERROR_ARGUMENT, field, "%s is %lld, the vocabulary has ids 0 to %d", field, (long long)id, size - 1);
}

static int mark_ids(struct score *score, const struct lab_token_set *set, struct error *error) {
  int32_t size = tokenizer_size(score->e.model->tokenizer);
  bool *wanted = arena_array(&score->e.arena, (size_t)size, sizeof *wanted, error);
  if (!wanted) return -1;
  for (size_t i = 0; i < set->n_ids; i++) {
    if (check_id(set->ids[i], i, size, error) != 0) return -1;
    wanted[set->ids[i]] = true;
  }
  for (size_t t = 0; t < score->e.n_texts; t++)
    for (size_t i = 0; i < score->e.texts[t].n; i++)
      if (wanted[score->e.texts[t].ids[i]]) score->side[t][i] = ON;
  return 0;
}

/* A BOS that the source was not trained on is on neither side. */
static void leave_out(struct score *score, const struct lab_source_info *source) {
  int32_t bos = tokenizer_bos(score->e.model->tokenizer);
  for (size_t t = 0; t < score->e.n_texts; t++)
    for (size_t i = 0; i < score->e.texts[t].n; i++) {
      uint8_t *side = &score->side[t][i];
      if (!source->bos_counts && score->e.texts[t].ids[i] == bos) *side = LEFT_OUT;
      score->result.n_on += *side == ON;
      score->result.n_off += *side == OFF;
    }
}

static int mark_all(struct score *score, const struct lab_token_score_args *args, struct error *error) {
  struct experiment *e = &score->e;
  score->side = arena_array(&e->arena, e->n_texts, sizeof *score->side, error);
  for (size_t t = 0; score->side && t < e->n_texts; t++)
    if (!(score->side[t] = arena_array(&e->arena, e->texts[t].n, sizeof *score->side[t], error))) return -1;
  if (!score->side || mark_words(score, &args->set, error) != 0 || mark_ids(score, &args->set, error) != 0) return -1;
  leave_out(score, args->source);
  if (score->result.n_on) return 0;
  return error_set_field(error, ERROR_ARGUMENT, args->set.n_words ? "words" : "ids",
                         "no text has any of the %zu words and ids%s; there is nothing to score", args->set.n_words + args->set.n_ids,
                         args->set.n_words && args->set.prepend_space ? " (words are looked for with a space in front; prependSpace: false takes them as they are)" : "");
}

/* ---- the verb ---- */

static int prepare(struct score *score, struct lab *lab, const struct lab_token_score_args *args, struct error *error) {
  if (args->set.n_words + args->set.n_ids == 0)
    return error_set_field(error, ERROR_ARGUMENT, "words", "give words, ids, or both: what features are to prefer");
  if (experiment_texts(&score->e, args->inputs, args->n_inputs, args->bos, true, error) != 0) return -1;
  score->dict = lab_source_of(lab, args->source)->dict;
  score->point = dict_info(score->dict)->in;
  score->n_feat = args->source->n_feat;
  score->top_k = args->top_k;
  score->tallies = calloc((size_t)score->n_feat, sizeof *score->tallies);
  if (!score->tallies) return error_memory(error, (size_t)score->n_feat * sizeof *score->tallies);
  return mark_all(score, args, error);
}

int lab_token_score(struct lab *lab, const struct lab_token_score_args *args, struct lab_waker waker, struct lab_job **out,
                    struct error *error) {
  struct experiment *e = experiment_new(lab, args->model, &verb, sizeof(struct score), waker, error);
  if (!e) return -1;
  if (prepare(score_of(e), lab, args, error) != 0) {
    experiment_free(e);
    return -1;
  }
  return experiment_start(e, out, error);
}

const struct lab_token_score_result *lab_token_score_result(const struct lab_job *job) { return &((const struct score *)job)->result; }
