/* model.c: a model as it was understood: switches of the architecture, what was done to its weights on the way
 * in, how large its parts are and what it takes to serve it. Reads struct arch and the family's table; runs nothing. */
#include <stdio.h>
#include <string.h>

#include "core/engine/kv.h"
#include "core/inspect/inspect_int.h"
#include "core/model/chat.h"
#include "core/model/plan.h"
#include "core/model/point_shape.h"
#include "core/model/points.h"
#include "core/model/process.h"

#define SERVED_ROWS 256 /* as max_step_rows of `serve` */
#define SERVED_LOGITS 16 /* as max_sessions */
#define SPECIALS_SHOWN 12

/* ---- model ---- */

static int tell_identity(const struct model *model, struct inspect_facts *facts, struct error *error) {
  static const char s[] = "model";
  int failed = fact_text(facts, s, "id", error, "%s", model->id) || fact_text(facts, s, "path", error, "%s", model->path) ||
               (model->processed && fact_text(facts, s, "processed", error, "yes, as TransformerLens does by default")) ||
               fact_text(facts, s, "family", error, "%s", model->arch.family) ||
               fact_text(facts, s, "format", error, "%s", tensors_format(model->tensors)) ||
               fact_bytes(facts, s, "files", tensors_bytes(model->tensors), error) ||
               fact_text(facts, s, "dtype", error, "%s", dtype_name(model->weights.dtype)) ||
               (model->keep != DTYPE_OTHER && fact_text(facts, s, "kept as", error, "%s", dtype_name(model->keep))) ||
               fact_int(facts, s, "parameters", model->weights.parameters, error);
  return failed ? -1 : 0;
}

/* ---- architecture ---- */

static const char *norm_word(enum norm_kind norm) {
  return norm == NORM_LAYER ? "LayerNorm" : norm == NORM_RMS ? "RMSNorm" : "none";
}

static const char *activation_word(const struct arch *arch) {
  static const char *const words[] = {[ACT_NONE] = "none", [ACT_RELU] = "relu", [ACT_GELU_TANH] = "gelu (tanh)",
                                      [ACT_GELU_ERF] = "gelu (erf)", [ACT_SILU] = "silu"};
  return arch->solu ? "solu" : words[arch->act];
}

static int tell_sizes_of(const struct arch *arch, struct inspect_facts *facts, struct error *error) {
  static const char s[] = "architecture";
  int failed = fact_int(facts, s, "layers", arch->n_layer, error) || fact_int(facts, s, "width", arch->d_model, error) ||
               fact_int(facts, s, "heads", arch->n_head, error) ||
               fact_int(facts, s, "key-value heads", arch->n_kv_head, error) ||
               fact_int(facts, s, "head width", arch->d_head, error) ||
               fact_int(facts, s, "MLP width", arch->d_mlp, error) ||
               fact_int(facts, s, "vocabulary", arch->vocabulary, error) ||
               fact_int(facts, s, "context", arch->n_ctx, error);
  return failed ? -1 : 0;
}

static int tell_norms(const struct arch *arch, struct inspect_facts *facts, struct error *error) {
  if (arch->stream_norm != NORM_NONE)
    return fact_text(facts, "architecture", "norms", error, "%s of the residual stream, behind each addition; none at the end; epsilon %g",
                     norm_word(arch->stream_norm), (double)arch->norm_eps);
  bool second = arch_has(arch, HAS_NORM2), after = arch_has(arch, HAS_POST_NORMS);
  const char *where = !arch_has(arch, HAS_MLP) ? "before attention"
                      : second                 ? "before attention and before the MLP"
                                               : "one, read by attention and MLP alike";
  return fact_text(facts, "architecture", "norms", error, "%s%s, %s%s; %s at the end; epsilon %g", norm_word(arch->norm),
                   arch_has(arch, HAS_GAINS) ? "" : " without gains", where,
                   after ? ", and after each of them" : "", norm_word(arch->final_norm), (double)arch->norm_eps);
}

static int tell_positions(const struct arch *arch, struct inspect_facts *facts, struct error *error) {
  const struct rotary *r = &arch->rotary;
  if (r->dims)
    return fact_text(facts, "architecture", "positions", error, "rotary on %d of %d elements of a head, pairs %s", r->dims,
                     arch->d_head, r->pairing == ROTARY_HALVES ? "from its two halves" : "of neighbours");
  return fact_text(facts, "architecture", "positions", error, "%s",
                   arch_has(arch, HAS_PLACED_KEYS) ? "learned, added to what queries and keys read (shortformer)"
                   : arch_has(arch, HAS_POSITIONS) ? "learned, added to the embedding"
                                                   : "none");
}

static int tell_attention(const struct arch *arch, struct inspect_facts *facts, struct error *error) {
  char window[96] = "", cap[48] = "";
  int local = 0;
  for (int l = 0; l < arch->n_layer; l++) local += arch->local[l];
  if (local) snprintf(window, sizeof window, ", %d of %d layers see %d positions", local, arch->n_layer, arch->window);
  if (arch->attn_soft_cap > 0) snprintf(cap, sizeof cap, ", soft cap %g", (double)arch->attn_soft_cap);
  return fact_text(facts, "architecture", "attention", error, "causal, scores x %.6g%s%s%s%s%s%s", (double)arch->attn_scale,
                   arch->scale_by_layer ? " / (layer + 1)" : "", cap, window,
                   arch_has(arch, HAS_QK_NORM) ? ", queries and keys normed per head" : "",
                   arch_has(arch, HAS_QKV_BIAS) ? ", biases on q, k, v" : "",
                   arch_has(arch, HAS_O_BIAS) ? ", bias on the output" : "");
}

static int tell_rest(const struct arch *arch, struct inspect_facts *facts, struct error *error) {
  static const char s[] = "architecture";
  char cap[48] = "";
  if (arch->logit_soft_cap > 0) snprintf(cap, sizeof cap, ", soft cap %g", (double)arch->logit_soft_cap);
  if (arch_has(arch, HAS_MLP) &&
      fact_text(facts, s, "MLP", error, "%s%s%s%s", activation_word(arch), arch->gated ? ", gated" : "",
                arch_has(arch, HAS_MLP_BIAS) ? ", biases" : "",
                arch_has(arch, HAS_MLP_NORM) ? ", a norm of its own after the activation" : "") != 0)
    return -1;
  if (fact_text(facts, s, "blocks", error, "%s",
                !arch_has(arch, HAS_MLP) ? "attention only" : arch->parallel ? "attention and MLP side by side"
                                                                             : "attention, then MLP") != 0)
    return -1;
  return fact_text(facts, s, "unembedding", error, "%s%s%s",
                   arch_has(arch, HAS_UNEMBED) ? "a matrix of its own" : "the embedding (tied)",
                   arch_has(arch, HAS_UNEMBED_BIAS) ? ", with a bias" : "", cap);
}

/* ---- transformations ---- */

static bool is_there(const struct arch *arch, const struct weight_row *row) {
  return arch_has(arch, row->needs) && !(arch->has & row->unless);
}

/* A name of the table for a reader: "h.N.attn.c_attn.weight". */
static const char *row_name(const struct weight_row *row, char out[96]) {
  const char *name = row->name + (row->name[0] == '/'), *digit = strstr(name, "%d");
  int before = digit ? (int)(digit - name) : (int)strlen(name);
  snprintf(out, 96, "%.*s%s%s", before, name, digit ? "N" : "", digit ? digit + 2 : "");
  return out;
}

static int tell_row(const struct weight_row *row, struct inspect_facts *facts, struct error *error) {
  static const char s[] = "transformations";
  char name[96];
  row_name(row, name);
  bool matrix = row->slot < SLOT_MATRICES;
  if (row->form == FORM_PIECE || row->form == FORM_HEAD_PIECE) {
    if (matrix && fact_text(facts, s, NULL, error, "%s: part %d of %d is taken, %s", name, row->piece + 1, row->pieces,
                            row->form == FORM_PIECE ? "the parts one after the other" : "head by head") != 0)
      return -1;
  } else if (matrix && (row->form == FORM_HEADS_OUT || row->form == FORM_HEADS_IN)) {
    if (fact_text(facts, s, NULL, error, "%s: one matrix for each head, laid side by side", name) != 0) return -1;
  } else if (matrix && row->layout == ROWS_ARE_INPUTS) {
    if (fact_text(facts, s, NULL, error, "%s: rows are inputs (Conv1D), turned while packing", name) != 0) return -1;
  }
  if (row->plus != 0 &&
      fact_text(facts, s, NULL, error, "%s: %+g (the file keeps gains minus one)", name, (double)row->plus) != 0)
    return -1;
  if (row->factor && fact_text(facts, s, NULL, error, "%s: multiplied with %s while it is packed, in f32", name, row->factor) != 0)
    return -1;
  if (row->skip && fact_text(facts, s, NULL, error, "%s: the first %d rows belong to no position", name, row->skip) != 0)
    return -1;
  return 0;
}

/* Names of rows of one slot, which become one matrix. */
static int tell_stack(const struct arch *arch, const struct arch_family *family, size_t i, struct inspect_facts *facts,
                      struct error *error) {
  char names[400] = "", name[96];
  int n = 0;
  enum weight_slot slot = family->rows[i].slot;
  for (size_t k = i; k < family->n_rows && family->rows[k].slot == slot; k++) {
    if (!is_there(arch, &family->rows[k]) || family->rows[k].form == FORM_HEAD_PIECE) continue;
    size_t used = strlen(names);
    snprintf(names + used, sizeof names - used, "%s%s", n++ ? ", " : "", row_name(&family->rows[k], name));
  }
  return n < 2 ? 0 : fact_text(facts, "transformations", NULL, error, "%s: stacked into one matrix", names);
}

/* Tensors of the file that a name of the table stands for. */
static size_t count_names(const struct arch *arch, const struct arch_family *family) {
  size_t n = 0;
  for (size_t i = 0; i < family->n_rows; i++) {
    bool again = false;
    if (!is_there(arch, &family->rows[i])) continue;
    for (size_t k = 0; k < i && !again; k++)
      again = is_there(arch, &family->rows[k]) && strcmp(family->rows[k].name, family->rows[i].name) == 0;
    if (!again) n += strstr(family->rows[i].name, "%d") ? (size_t)arch->n_layer : 1;
  }
  return n;
}

static int tell_processing(const struct model *model, struct inspect_facts *facts, struct error *error) {
  static const char s[] = "transformations";
  const char *lines[PROCESS_LINES];
  int n = process_lines(&model->stored, lines);
  for (int i = 0; i < n; i++)
    if (fact_text(facts, s, NULL, error, "%s", lines[i]) != 0) return -1;
  return fact_text(facts, s, NULL, error, "everything becomes f32 for that; matrices are packed for this processor");
}

static int tell_transformations(const struct model *model, struct inspect_facts *facts, struct error *error) {
  static const char s[] = "transformations";
  const struct arch *arch = &model->stored;
  const struct arch_family *family = model->family;
  for (size_t i = 0; i < family->n_rows; i++) {
    const struct weight_row *row = &family->rows[i];
    if (is_there(arch, row) && tell_row(row, facts, error) != 0) return -1;
    bool first = i == 0 || family->rows[i - 1].slot != row->slot;
    if (first && row->slot < SLOT_MATRICES && tell_stack(arch, family, i, facts, error) != 0) return -1;
  }
  if (arch->embed_scale != 1 &&
      fact_text(facts, s, NULL, error, "embedding x %g, in the model's first step", (double)arch->embed_scale) != 0)
    return -1;
  if (!model->processed && !arch_has(arch, HAS_UNEMBED) &&
      fact_text(facts, s, NULL, error, "the embedding is kept once and is the unembedding too") != 0)
    return -1;
  size_t have = tensors_count(model->tensors), used = count_names(arch, family);
  if (have > used && fact_text(facts, s, NULL, error, "tensors of the file that are not read, buffers and copies that "
                                                      "the family is known to carry: %zu", have - used) != 0)
    return -1;
  if (model->processed) return tell_processing(model, facts, error);
  return fact_text(facts, s, NULL, error,
                   "matrices are packed for this processor in the file's type; norms, biases and learned positions become "
                   "f32; nothing is folded, centred or permuted");
}

/* ---- sizes ---- */

struct part {
  const char *name;
  uint64_t slots; /* bit by enum weight_slot */
};
#define BIT(slot) (UINT64_C(1) << (slot))

static const struct part parts[] = {
    {"embedding", BIT(SLOT_EMBED)},
    {"positions", BIT(SLOT_POSITIONS)},
    {"attention", BIT(SLOT_QKV) | BIT(SLOT_V) | BIT(SLOT_O) | BIT(SLOT_QKV_BIAS) | BIT(SLOT_O_BIAS) | BIT(SLOT_Q_GAIN) |
                      BIT(SLOT_K_GAIN)},
    {"MLP", BIT(SLOT_IN) | BIT(SLOT_GATE) | BIT(SLOT_OUT) | BIT(SLOT_IN_BIAS) | BIT(SLOT_GATE_BIAS) | BIT(SLOT_OUT_BIAS) |
                BIT(SLOT_MLP_NORM_GAIN) | BIT(SLOT_MLP_NORM_BIAS)},
    {"norms", BIT(SLOT_NORM1_GAIN) | BIT(SLOT_NORM1_BIAS) | BIT(SLOT_NORM2_GAIN) | BIT(SLOT_NORM2_BIAS) |
                  BIT(SLOT_FINAL_GAIN) | BIT(SLOT_FINAL_BIAS) | BIT(SLOT_POST1_GAIN) | BIT(SLOT_POST2_GAIN)},
    {"unembedding", BIT(SLOT_UNEMBED) | BIT(SLOT_UNEMBED_BIAS)}};

/* Of its rows in slots from `first` on. */
static int64_t part_parameters(const struct model *model, const struct part *part, int first) {
  const struct arch *arch = &model->stored;
  int64_t count = 0;
  for (size_t i = 0; i < model->family->n_rows; i++) {
    const struct weight_row *row = &model->family->rows[i];
    if ((int)row->slot < first || !(part->slots & BIT(row->slot)) || !is_there(arch, row)) continue;
    count += arch_dim(arch, row->out) * arch_dim(arch, row->in) * (strstr(row->name, "%d") ? arch->n_layer : 1);
  }
  return count;
}

static size_t part_bytes(const struct model *model, const struct part *part) {
  size_t bytes = (size_t)part_parameters(model, part, SLOT_MATRICES) * sizeof(float);
  for (int slot = 0; slot < SLOT_MATRICES; slot++) {
    if (!(part->slots & BIT(slot))) continue;
    bool tied = slot == SLOT_UNEMBED && !arch_has(&model->arch, HAS_UNEMBED);
    for (int l = -1; l < model->arch.n_layer && !tied; l++) {
      const struct weight_set *set = l < 0 ? &model->weights.once : &model->weights.layers[l];
      const struct matrix *matrix = set->matrix[slot];
      bytes += matrix ? matrix->bytes : 0;
    }
  }
  return bytes;
}

/* Processing leaves vectors out and adds others: what is there counts. */
static size_t part_bytes_processed(const struct model *model, const struct part *part) {
  size_t bytes = 0;
  for (int l = -1; l < model->arch.n_layer; l++) {
    const struct weight_set *set = l < 0 ? &model->weights.once : &model->weights.layers[l];
    for (int slot = 0; slot < SLOT_COUNT; slot++) {
      if (!(part->slots & BIT(slot))) continue;
      if (slot < SLOT_MATRICES)
        bytes += set->matrix[slot] ? set->matrix[slot]->bytes : 0;
      else if (set->vector[slot].memory)
        bytes += (size_t)process_vector_count(&model->arch, (enum weight_slot)slot) * sizeof(float);
    }
  }
  return bytes;
}

static int tell_sizes(const struct model *model, struct inspect_facts *facts, struct error *error) {
  char text[32];
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
    int64_t parameters = part_parameters(model, &parts[i], 0);
    if (parameters == 0 && !(model->processed && (parts[i].slots & BIT(SLOT_UNEMBED)))) continue;
    size_t bytes = model->processed ? part_bytes_processed(model, &parts[i]) : part_bytes(model, &parts[i]);
    if (fact_value(facts, "sizes", parts[i].name, (int64_t)bytes, error, "%s in memory, %lld parameters",
                   bytes_text(bytes, text), (long long)parameters) != 0)
      return -1;
  }
  return 0;
}

/* ---- tokenizer ---- */

static void token_text(const struct tokenizer *t, int32_t id, char out[64]) {
  size_t length = 0;
  const char *bytes = tokenizer_bytes(t, id, &length);
  if (id < 0)
    snprintf(out, 64, "none");
  else
    snprintf(out, 64, "%d (%.*s)", id, (int)(length < 40 ? length : 40), bytes);
}

static int tell_specials(const struct tokenizer *t, struct inspect_facts *facts, struct error *error) {
  char list[1024] = "", token[64];
  int n = 0;
  for (int32_t id = 0; id < tokenizer_size(t); id++) {
    if (!tokenizer_is_special(t, id) || n++ >= SPECIALS_SHOWN) continue;
    size_t used = strlen(list);
    token_text(t, id, token);
    snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "", token);
  }
  char more[32] = "";
  if (n > SPECIALS_SHOWN) snprintf(more, sizeof more, " and %d more", n - SPECIALS_SHOWN);
  return fact_text(facts, "tokenizer", "special tokens", error, "%s%s", n ? list : "none", more);
}

static int tell_tokenizer(const struct model *model, struct inspect_facts *facts, struct error *error) {
  static const char s[] = "tokenizer";
  const struct tokenizer *t = model->tokenizer;
  char bos[64], eos[64];
  token_text(t, tokenizer_bos(t), bos);
  token_text(t, tokenizer_eos(t), eos);
  if (fact_text(facts, s, "kind", error, "%s", tokenizer_title(t)) != 0 ||
      fact_int(facts, s, "tokens", tokenizer_size(t), error) != 0 || fact_text(facts, s, "BOS", error, "%s", bos) != 0 ||
      fact_text(facts, s, "EOS", error, "%s", eos) != 0 ||
      fact_text(facts, s, "prompts begin with BOS", error, "%s", tokenizer_prepends_bos(t) ? "yes" : "no") != 0)
    return -1;
  const struct chat_template *chat = tokenizer_chat(t);
  const char *format = chat_format_name(chat);
  if (chat->present &&
      fact_text(facts, s, "chat template", error, "%s", format ? format : "of no format that is known here") != 0)
    return -1;
  if (tokenizer_size(t) < model->arch.vocabulary &&
      fact_int(facts, s, "rows of the embedding without a token", model->arch.vocabulary - tokenizer_size(t), error) != 0)
    return -1;
  return tell_specials(t, facts, error);
}

/* ---- points and memory ---- */

static int tell_points(const struct model *model, struct inspect_facts *facts, struct error *error) {
  int sites[3] = {0, 0, 0}, points = 0;
  char name[POINT_NAME_BYTES];
  for (int site = 0; site < SITE_COUNT; site++) {
    bool counted = false;
    for (int layer = 0; layer <= model->arch.n_layer; layer++) {
      struct point wanted = {layer, (enum site)site}, found;
      if (point_find(point_name(wanted, name), &model->arch, &found, NULL) != 0) continue;
      if (found.site != wanted.site || found.layer != wanted.layer) continue;
      points++;
      if (!counted) sites[point_shape(&model->arch, wanted.site).kind]++;
      counted = true;
    }
  }
  return fact_int(facts, "points", "points", points, error) != 0 ||
                 fact_text(facts, "points", "kinds", error,
                           "%d hot (free), %d cold (their layer runs instrumented), %d derived", sites[POINT_HOT],
                           sites[POINT_COLD], sites[POINT_DERIVED]) != 0
             ? -1
             : 0;
}

static int tell_memory(const struct model *model, struct inspect_facts *facts, struct error *error) {
  static const char s[] = "memory";
  const struct arch *arch = &model->arch;
  size_t context = kv_sequence_bytes(model, arch->n_ctx);
  struct plan *plan = plan_new(model, (struct plan_limits){SERVED_ROWS, SERVED_LOGITS}, error);
  if (!plan) return -1;
  size_t buffers = plan_bytes(plan);
  plan_free(plan);
  int failed = fact_bytes(facts, s, "weights", model->weights.bytes, error) ||
               fact_bytes(facts, s, "buffers of a step", buffers, error) ||
               fact_bytes(facts, s, "keys and values of a token", context / (size_t)arch->n_ctx, error) ||
               fact_bytes(facts, s, "keys and values of a full context", context, error);
  return failed ? -1 : 0;
}

int inspect_model(const struct model *model, struct inspect_facts *facts, struct error *error) {
  const struct arch *arch = &model->arch;
  int failed = tell_identity(model, facts, error) || tell_sizes_of(arch, facts, error) || tell_norms(arch, facts, error) ||
               tell_positions(arch, facts, error) || tell_attention(arch, facts, error) || tell_rest(arch, facts, error) ||
               tell_transformations(model, facts, error) || tell_sizes(model, facts, error) ||
               tell_tokenizer(model, facts, error) || tell_points(model, facts, error) || tell_memory(model, facts, error);
  return failed ? -1 : 0;
}
