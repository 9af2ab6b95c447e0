/* train_state.c: a trainer as bytes, and back: what a killed run goes on from. Knows no file but the stream it is given. */
#include <errno.h>
#include <string.h>

#include "core/dict/train_int.h"

#define STATE_VERSION 3u

struct saved_trainer {
  uint32_t version, bytes; /* of this */
  struct train_options options;
  int64_t step;
  double scale, scale_out, threshold, weight;
  float cut, zero;
};

/* Everything else that the next step reads: [count] parts of memory. */
#define PARTS 16
struct part {
  void *data;
  size_t bytes;
};

static void parts_of(const struct trainer *t, struct part out[PARTS]) {
  size_t features = (size_t)t->options.n_feat, width = (size_t)t->options.width, width_out = (size_t)train_width_out(&t->options);
  const struct train_parameter *const parameters[] = {&t->enc, &t->dec, &t->b_enc, &t->b_dec, &t->thresholds};
  const size_t sizes[] = {features * width, features * width_out, features, width_out, features};
  for (size_t i = 0; i < 5; i++) {
    float *const arrays[] = {parameters[i]->value, parameters[i]->first, parameters[i]->second};
    for (size_t j = 0; j < 3; j++) out[3 * i + j] = (struct part){arrays[j], sizes[i] * sizeof(float)};
  }
  out[15] = (struct part){t->silent, features * sizeof *t->silent};
}

int trainer_save(const struct trainer *t, FILE *file, struct error *error) {
  struct part parts[PARTS];
  struct saved_trainer head;
  memset(&head, 0, sizeof head);
  head.version = STATE_VERSION;
  head.bytes = sizeof head;
  head.options = t->options;
  head.step = t->step;
  head.scale = t->scale;
  head.scale_out = t->scale_out;
  head.threshold = t->threshold;
  head.weight = t->weight;
  head.cut = t->cut;
  parts_of(t, parts);
  bool fine = fwrite(&head, sizeof head, 1, file) == 1;
  for (int i = 0; fine && i < PARTS; i++) fine = fwrite(parts[i].data, 1, parts[i].bytes, file) == parts[i].bytes;
  return fine ? 0 : error_set(error, ERROR_IO, "the training's state could not be written: %s", strerror(errno));
}

static bool same_options(const struct train_options *a, const struct train_options *b) {
  return a->kind == b->kind && a->width == b->width && a->width_out == b->width_out && a->n_feat == b->n_feat && a->k == b->k && a->batch == b->batch &&
         a->steps == b->steps && a->seed == b->seed && a->rate == b->rate && a->warm_up == b->warm_up && a->decay == b->decay &&
         a->l1 == b->l1 && a->l1_warm_up == b->l1_warm_up && a->aux == b->aux && a->dead_after == b->dead_after &&
         a->init_norm == b->init_norm && a->threshold == b->threshold && a->bandwidth == b->bandwidth && a->l0 == b->l0 &&
         a->l0_warm_up == b->l0_warm_up && a->l0_loss == b->l0_loss && a->target_l0 == b->target_l0 && a->tanh_scale == b->tanh_scale &&
         a->pre_act == b->pre_act && a->ste_to_input == b->ste_to_input;
}

int trainer_load(struct trainer *t, FILE *file, struct error *error) {
  struct part parts[PARTS];
  struct saved_trainer head;
  if (fread(&head, sizeof head, 1, file) != 1) return error_set(error, ERROR_FORMAT, "the training's state is cut short");
  if (head.version != STATE_VERSION || head.bytes != sizeof head)
    return error_set(error, ERROR_FORMAT, "the training's state was saved by another version");
  if (!same_options(&head.options, &t->options) || head.step < 0 || head.step > t->options.steps)
    return error_set(error, ERROR_FORMAT, "the training's state is of other options");
  parts_of(t, parts);
  for (int i = 0; i < PARTS; i++)
    if (fread(parts[i].data, 1, parts[i].bytes, file) != parts[i].bytes)
      return error_set(error, ERROR_FORMAT, "the training's state is cut short");
  t->step = head.step;
  t->scale = head.scale;
  t->scale_out = head.scale_out;
  t->threshold = head.threshold;
  t->weight = head.weight;
  t->cut = head.cut;
  return trainer_fold_all(t, error);
}
