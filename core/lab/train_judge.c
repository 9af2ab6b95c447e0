/* train_judge.c: a dictionary that was just written, opened as anybody opens it, over rows that it was not trained on. */
#include <math.h>
#include <stdlib.h>

#include "core/analysis/quality.h"
#include "core/base/checked.h"
#include "core/lab/train.h"

#define PIECE 256 /* rows encoded together */
#define MOST_ROWS 16384

/* y: what is to be made of x; x itself but for a transcoder. */
static int add_rows(const struct dict *dict, struct backend *backend, const float *x, const float *y, int64_t n, struct quality *quality,
                    struct error *error) {
  int64_t width = dict_info(dict)->in_width, out = dict_info(dict)->out_width;
  struct memory *memory = NULL;
  struct sparse codes;
  sparse_init(&codes);
  int failed = backend->ops->alloc(backend, (size_t)(PIECE * width) * sizeof *x, &memory, error);
  for (int64_t at = 0; at < n && !failed; at += PIECE) {
    int64_t rows = n - at < PIECE ? n - at : PIECE;
    codes.n_rows = 0;
    failed = backend->ops->write(backend, (struct span){memory, 0}, x + at * width, (size_t)(rows * width) * sizeof *x, error) != 0 ||
             dict_encode(dict, (struct rows){{memory, 0}, width}, rows, &codes, error) != 0 ||
             quality_add(quality, &codes, 0, (size_t)rows, x + at * width, y + at * out, error) != 0;
  }
  sparse_clear(&codes);
  backend->ops->free(backend, memory);
  return failed ? -1 : 0;
}

static int judge_rows(const struct lab *lab, const struct train_plan *plan, const float *x, const float *y, int64_t n,
                      struct lab_train_found *out, struct error *error) {
  const struct dict_host host = {.model_id = plan->args.model_id, .arch = &plan->opened->model->arch};
  struct backend *backend = backend_open("cpu", lab->threads, error);
  struct dict *dict = backend ? dict_open(plan->args.out, "trained-here", &host, backend, error) : NULL;
  struct quality *quality = dict ? quality_new(dict, error) : NULL;
  int failed = quality ? add_rows(dict, backend, x, y, n, quality, error) : -1;
  if (!failed) {
    struct quality_figures figures;
    quality_read(quality, &figures);
    out->held_out = figures.rows;
    out->l0 = figures.l0;
    out->mse = figures.mse;
    out->explained = figures.explained;
    for (int64_t f = 0; f < dict_info(dict)->n_feat; f++) out->dead += quality_fired(quality)[f] == 0;
  }
  quality_free(quality);
  dict_close(dict);
  backend_close(backend);
  return failed;
}

int train_judge(const struct lab *lab, const struct train_plan *plan, struct lab_train_found *out, struct error *error) {
  struct feed_options feed = train_plan_feed(lab, plan);
  int64_t rows = 0;
  out->held_out = out->dead = 0;
  out->l0 = out->mse = out->explained = (double)NAN;
  for (int64_t d = 0; d < plan->held_out; d++) rows += feed_document_rows(&feed, plan->trained + d);
  if (rows > MOST_ROWS) rows = MOST_ROWS;
  if (rows == 0) return 0;
  size_t in = (size_t)rows * (size_t)plan->options.width, made = (size_t)rows * (size_t)plan->options.width_out;
  float *all = malloc((in + made) * sizeof *all);
  if (!all) return error_memory(error, (in + made) * sizeof *all);
  float *const to[FEED_POINTS] = {all, made ? all + in : NULL};
  int64_t n = feed_read(&feed, plan->trained, rows, to, error);
  int failed = n < 0 ? -1 : judge_rows(lab, plan, all, made ? to[1] : all, n, out, error);
  free(all);
  return failed;
}
