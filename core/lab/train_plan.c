/* train_plan.c: what a training run is to be: arguments, defaults, refusals. Runs nothing. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/base/mapfile.h"
#include "core/base/room.h"
#include "core/dict/dict_config.h"
#include "core/lab/subject.h"
#include "core/lab/train.h"
#include "core/model/point_shape.h"
#include "core/model/points.h"

#define BUFFER_BYTES ((int64_t)512 << 20)
#define HELD_OUT_SHARE 20          /* one document of so many, ... */
#define HELD_OUT_ROWS 16384        /* ... and no more than have so many rows */
#define FEWEST_STEPS 500
#define MOST_TASK_ROWS 4096

/* ---- arguments as text ---- */

static void write_options(struct json_writer *w, const struct lab_train_args *args) {
  size_t n;
  const struct lab_train_option *options = lab_train_options(&n);
  for (size_t i = 0; i < n; i++) {
    double value = lab_train_get(args, &options[i]);
    jw_key(w, options[i].name);
    if (value == options[i].left_out && value < options[i].low) /* a seed that is left out is 0, as it is where it is given */
      jw_null(w);
    else if (options[i].whole)
      jw_int(w, (int64_t)value);
    else
      jw_f64(w, value);
  }
}

/* What is no number. */
static void write_words(struct json_writer *w, const struct lab_train_args *a) {
  jw_member_text(w, "architecture", a->kind);
  jw_member_text(w, "l0Loss", a->l0_loss);
  jw_key(w, "steToInput");
  if (strcmp(a->kind, train_kind_name(TRAIN_JUMPRELU)) == 0)
    jw_bool(w, a->ste_to_input);
  else
    jw_null(w);
}

const char *train_args_write(const struct lab_train_args *a, struct arena *arena, struct error *error) {
  struct buffer text;
  struct json_writer w;
  buffer_init(&text, 0);
  jw_init(&w, &text);
  jw_open(&w, '{');
  jw_member_text(&w, "modelId", a->model_id);
  jw_member_text(&w, "point", a->point);
  jw_member_text(&w, "to", a->to);
  jw_member_text(&w, "corpus", a->corpus);
  jw_member_bool(&w, "lines", a->lines);
  jw_member_int(&w, "maxTokens", a->max_tokens);
  jw_member_text(&w, "out", a->out);
  write_words(&w, a);
  write_options(&w, a);
  jw_close(&w, '}');
  char *copy = buffer_check(&text, error) == 0 ? arena_text(arena, text.data, text.length, error) : NULL;
  buffer_clear(&text);
  return copy;
}

void train_args_read(const struct json_node *node, struct lab_train_args *out) {
  size_t n;
  const struct lab_train_option *options = lab_train_options(&n);
  *out = (struct lab_train_args){.model_id = json_text_or(json_get(node, "modelId"), ""), .point = json_text_or(json_get(node, "point"), ""),
                                 .to = json_text_or(json_get(node, "to"), NULL),
                                 .corpus = json_text_or(json_get(node, "corpus"), ""), .lines = json_bool_or(json_get(node, "lines"), false),
                                 .max_tokens = json_int_or(json_get(node, "maxTokens"), 0), .out = json_text_or(json_get(node, "out"), ""),
                                 .kind = json_text_or(json_get(node, "architecture"), ""), .l0_loss = json_text_or(json_get(node, "l0Loss"), NULL),
                                 .ste_to_input = json_bool_or(json_get(node, "steToInput"), false)};
  for (size_t i = 0; i < n; i++) lab_train_set(out, &options[i], json_number_or(json_get(node, options[i].name), options[i].left_out));
}

/* ---- by the model ---- */

/* Whatever is read must be something that could be written, too: rows of one width that something is added to. */
static int find_point(const struct arch *arch, const char *field, const char *name, struct point *out, struct error *error) {
  struct error own = ERROR_INIT;
  if (point_find(name, arch, out, &own) != 0) return error_set_field(error, own.code, field, "%s", own.text);
  struct point_shape shape = point_shape(arch, out->site);
  if (shape.square || out->layer >= arch->n_layer)
    return error_set_field(error, ERROR_ARGUMENT, field, "dictionaries of '%.80s' are not served: %s", name,
                           shape.square ? "its width grows with the text" : "it comes behind the layers");
  if (dict_writes(arch, out->site)) return 0;
  return error_set_field(error, ERROR_ARGUMENT, field, "dictionaries of '%.80s' are not served (served: rows of the residual stream's "
                         "width, hook_q, hook_k, hook_v, hook_z and the inside of the MLP)", name);
}

static int find_made(struct train_plan *plan, struct error *error) {
  const struct arch *arch = &plan->opened->model->arch;
  const char *name = plan->args.to;
  struct point *made = &plan->points[1];
  if (find_point(arch, "to", name, made, error) != 0) return -1;
  int behind = point_index(*made) - point_index(plan->points[0]);
  if (behind == 0)
    return error_set_field(error, ERROR_ARGUMENT, "to", "to is '%.80s', the point that is read: leave it out for an autoencoder", name);
  if (behind < 0)
    return error_set_field(error, ERROR_ARGUMENT, "to", "to is '%.80s', which comes before '%.80s', the point that is read", name, plan->args.point);
  plan->n_points = 2;
  plan->options.width_out = point_width(arch, made->site, 0);
  return 0;
}

static int find_points(struct train_plan *plan, struct error *error) {
  const struct arch *arch = &plan->opened->model->arch;
  if (find_point(arch, "point", plan->args.point, &plan->points[0], error) != 0) return -1;
  plan->n_points = 1;
  plan->options.width = point_width(arch, plan->points[0].site, 0);
  plan->heads = !plan->args.to && plan->points[0].site == SITE_ATTN_Z;
  return plan->args.to ? find_made(plan, error) : 0;
}

int lab_train_check(const struct lab_train_args *args, struct error *error) {
  if (train_options_check(args, error) != 0) return -1;
  if (!args->corpus || !*args->corpus)
    return error_set_field(error, ERROR_ARGUMENT, "corpus", "corpus is needed: the path of a UTF-8 text file");
  if (!path_is_file(args->corpus))
    return error_set_field(error, ERROR_NOT_FOUND, "corpus", "corpus '%.200s' is not a file that can be read", args->corpus);
  return subject_in_range("maxTokens", args->max_tokens, 0, INT64_MAX, error);
}

/* Ranges that are the model's. */
static int check_ranges(const struct train_plan *plan, struct error *error) {
  const struct lab_train_args *args = &plan->args;
  if (subject_in_range("expansion", args->expansion, 0, (1 << 24) / plan->options.width, error) != 0) return -1;
  return args->context ? subject_in_range("context", args->context, 8, plan->opened->model->arch.n_ctx, error) : 0;
}

/* 0: the text decides. */
static int64_t asked_steps(const struct train_plan *plan) {
  int64_t batch = plan->options.batch;
  return plan->args.tokens ? (plan->args.tokens + batch - 1) / batch : plan->args.steps;
}

/* Where an argument says nothing. */
static void settle_sizes(struct train_plan *plan) {
  const struct lab_train_args *args = &plan->args;
  struct train_options *o = &plan->options;
  int64_t n_ctx = plan->opened->model->arch.n_ctx;
  o->n_feat = args->features ? args->features : (args->expansion ? args->expansion : 8) * o->width;
  o->k = args->k;
  if (!o->k && train_takes_k(o->kind)) o->k = train_default_k(o->n_feat);
  o->batch = args->batch ? args->batch : TRAIN_BATCH;
  o->seed = (uint64_t)args->seed;
  plan->context = args->context ? args->context : n_ctx < 128 ? n_ctx : 128;
}

static int settle_buffer(struct train_plan *plan, struct error *error) {
  const struct train_options *o = &plan->options;
  int64_t rows = plan->args.buffer, most = BUFFER_BYTES / ((o->width + o->width_out) * (int64_t)sizeof(float));
  if (!rows) rows = 32 * o->batch < most ? 32 * o->batch : most;
  plan->buffer_batches = rows / o->batch > 0 ? rows / o->batch : 1;
  plan->buffer = plan->buffer_batches * o->batch;
  return plan->buffer <= INT32_MAX ? 0 : error_set_field(error, ERROR_ARGUMENT, "buffer", "buffer is more than 2^31 rows");
}

int train_plan_make(struct lab *lab, const struct lab_train_args *args, struct train_plan *out, struct error *error) {
  *out = (struct train_plan){.args = *args};
  const struct lab_model_info *model = lab_find_model(lab, args->model_id, error);
  if (!model) return -1;
  out->opened = lab_model_of(lab, model);
  out->args.model_id = model->id;
  if (lab_train_check(args, error) != 0 || train_kind_find(args->kind, &out->options.kind, error) != 0 || find_points(out, error) != 0 ||
      check_ranges(out, error) != 0)
    return -1;
  out->bos = tokenizer_bos(out->opened->model->tokenizer) >= 0;
  settle_sizes(out);
  if (settle_buffer(out, error) != 0) return -1;
  /* What the steps decide is looked at with those that are asked for, or with any. */
  out->options.steps = asked_steps(out) ? asked_steps(out) : 1000000000;
  train_plan_schedule(out);
  int failed = train_check(&out->options, error);
  if (!asked_steps(out)) out->options.steps = 0;
  return failed;
}

/* ---- by the text ---- */

/* Of jumprelu. Names of losses were looked at with the arguments. */
static void schedule_jump(const struct lab_train_args *args, struct train_options *o) {
  struct error error = ERROR_INIT;
  if (train_l0_loss_of(args, &o->l0_loss, &error) != 0) error_clear(&error);
  if (args->l0 >= 0) o->l0 = args->l0;
  if (args->l0_warm_up >= 0) o->l0_warm_up = args->l0_warm_up;
  if (args->threshold >= 0) o->threshold = args->threshold;
  if (args->bandwidth >= 0) o->bandwidth = args->bandwidth;
  if (args->target_l0 >= 0) o->target_l0 = args->target_l0;
  if (args->tanh_scale >= 0) o->tanh_scale = args->tanh_scale;
  if (args->pre_act >= 0) o->pre_act = args->pre_act;
  o->ste_to_input = args->ste_to_input;
}

void train_plan_schedule(struct train_plan *plan) {
  const struct lab_train_args *args = &plan->args;
  struct train_options *o = &plan->options;
  train_defaults(o);
  if (args->rate != 0) o->rate = args->rate;
  if (args->l1 >= 0) o->l1 = args->l1;
  if (args->aux >= 0) o->aux = args->aux;
  if (args->warm_up >= 0) o->warm_up = args->warm_up;
  if (args->decay >= 0) o->decay = args->decay;
  if (args->l1_warm_up >= 0) o->l1_warm_up = args->l1_warm_up;
  if (args->dead_after >= 0) o->dead_after = args->dead_after;
  if (o->kind == TRAIN_JUMPRELU) schedule_jump(args, o);
}

static int64_t rows_of(const struct train_plan *plan, int64_t document) {
  int64_t rows = corpus_length(plan->corpus, document) - plan->bos;
  return rows > 0 ? rows : 0;
}

/* The last documents, but never all of them. */
static void hold_out(struct train_plan *plan) {
  int64_t all = corpus_documents(plan->corpus), most = (all + HELD_OUT_SHARE - 1) / HELD_OUT_SHARE, rows = 0;
  while (plan->held_out < most && plan->held_out + 1 < all && rows < HELD_OUT_ROWS)
    rows += rows_of(plan, all - ++plan->held_out);
  plan->trained = all - plan->held_out;
}

static int check_memory(const struct train_plan *plan, struct error *error) {
  struct feed_options feed = {.batch = plan->options.batch, .batches = plan->buffer_batches, .n_points = plan->n_points,
                              .widths = {plan->options.width, plan->options.width_out}};
  size_t train = train_bytes(&plan->options), rows = feed_bytes(&feed), room = memory_room("");
  if (train <= room && rows <= room - train) return 0;
  return error_set(error, ERROR_MEMORY,
                   "training needs up to %.0f MiB, of them %.0f for shuffled activations, but %.0f MiB are free: fewer features, a smaller "
                   "batch or a smaller buffer take less",
                   ((double)train + (double)rows) / 1048576, (double)rows / 1048576, (double)room / 1048576);
}

int train_plan_settle(struct train_plan *plan, struct error *error) {
  struct train_options *o = &plan->options;
  int64_t rows = 0;
  hold_out(plan);
  for (int64_t d = 0; d < plan->trained; d++) rows += rows_of(plan, d);
  if (rows < o->batch)
    return error_set_field(error, ERROR_ARGUMENT, "corpus",
                           "'%.200s' has %lld tokens to train on (%lld documents of up to %lld; the last %lld are held out), which is less than a "
                           "batch of %lld: take a longer text or a smaller batch",
                           plan->args.corpus, (long long)rows, (long long)plan->trained, (long long)plan->context, (long long)plan->held_out,
                           (long long)o->batch);
  o->steps = asked_steps(plan);
  if (!o->steps) o->steps = rows / o->batch > FEWEST_STEPS ? rows / o->batch : FEWEST_STEPS;
  train_plan_schedule(plan);
  return train_check(o, error) != 0 || check_memory(plan, error) != 0 ? -1 : 0;
}

struct feed_options train_plan_feed(const struct lab *lab, const struct train_plan *plan) {
  int sessions = lab->options.max_sessions / 2;
  return (struct feed_options){.engine = lab->engine, .model = plan->opened->model, .corpus = plan->corpus,
                               .points = {plan->points[0], plan->points[1]}, .n_points = plan->n_points,
                               .widths = {plan->options.width, plan->options.width_out}, .documents = plan->trained, .skip_first = plan->bos,
                               .seed = plan->options.seed, .batch = plan->options.batch, .batches = plan->buffer_batches,
                               .max_sequences = 4 * (sessions > 0 ? sessions : 1), .max_rows = MOST_TASK_ROWS};
}

/* ---- identity ---- */

/* What is no number. */
static void identify_words(const struct train_options *o, struct json_writer *w) {
  if (o->kind != TRAIN_JUMPRELU) return;
  jw_member_text(w, "l0Loss", train_l0_loss_name(o->l0_loss));
  jw_member_bool(w, "steToInput", o->ste_to_input);
}

int train_plan_identity(const struct train_plan *plan, struct buffer *out, struct error *error) {
  size_t n;
  const struct lab_train_option *options = lab_train_options(&n);
  char name[POINT_NAME_BYTES];
  struct json_writer w;
  jw_init(&w, out);
  jw_open(&w, '{');
  jw_member_text(&w, "modelId", plan->args.model_id);
  jw_member_text(&w, "point", point_name(plan->points[0], name));
  jw_member_text(&w, "to", plan->n_points > 1 ? point_name(plan->points[1], name) : NULL); /* null: what is left out differs too */
  jw_member_text(&w, "architecture", train_kind_name(plan->options.kind));
  identify_words(&plan->options, &w);
  for (size_t i = 0; i < n; i++) {
    double value = train_plan_value(plan, &options[i]);
    if (!isnan(value)) jw_member_f64(&w, options[i].name, value);
  }
  if (plan->corpus) jw_member_text(&w, "corpus", corpus_identity(plan->corpus));
  jw_close(&w, '}');
  return buffer_check(out, error);
}
