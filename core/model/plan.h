/* plan.h: a model compiled, once, into a flat list of ops with bound buffers.
 *
 * The list is cut into segments: one per layer, then the head. Segment l is
 *
 *   BEGIN(l)                 residual of arriving rows; edits and taps of resid_pre.l
 *   NORM LINEAR [NORM NORM] [ROTATE] ATTEND LINEAR   attention (norms of the heads of q and of k); attn_z
 *   [NORM]                   post-norm, in place
 *   SUBLAYER                 attn_out, residual, resid_mid, second norm
 *   LINEAR [LINEAR GATE | SOLU [NORM]] POINT LINEAR   MLP; edits and taps of mlp_post
 *   [NORM]                   post-norm, in place
 *   SUBLAYER                 mlp_out, residual, resid_post
 *
 * Parallel blocks have no resid_mid: the MLP reads the first norm, or a [NORM] of its own before attention is added.
 * Attention-only blocks end with a SUBLAYER of attn_out and resid_post. Where the stream itself is normed, each SUBLAYER is
 * followed by NORM, in place on the residual, and POINT, which has the residual's point then. Where positions are added to what q and k
 * read, attention begins PLACE LINEAR LINEAR. The head is GATHER NORM LINEAR over the rows whose logits are wanted.
 *
 * A step runs the segments its rows need and no more; those in which it has edits or taps at cold points run
 * instrumented (instrument.h), with the same bits. The plan owns the buffers, all planned at plan_new; nothing but the
 * op list of an instrumented step is allocated while it runs.
 * Used by one thread at a time. */
#ifndef STEERD_CORE_MODEL_PLAN_H
#define STEERD_CORE_MODEL_PLAN_H

#include "core/math/ops.h"
#include "core/model/instrument.h"
#include "core/model/model.h"

struct plan;

struct plan_limits {
  int32_t max_rows;       /* rows in one step */
  int32_t max_logit_rows; /* of these, rows whose logits can be asked for */
};

/* model is borrowed and outlives the plan. ERROR_MEMORY names the bytes. */
struct plan *plan_new(const struct model *model, struct plan_limits limits, struct error *error) MUST_CHECK;
void plan_free(struct plan *plan); /* NULL is fine */

/* Runs a step: at most max_rows rows, max_logit_rows logit rows (asserted). */
int plan_run(struct plan *plan, const struct step *step, struct error *error) MUST_CHECK;

/* The ops that plan_run runs for a step of at least one row, valid until the next call. */
int plan_ops(struct plan *plan, const struct step *step, const struct op **ops, size_t *count,
             struct error *error) MUST_CHECK;

/* Logits of further rows of the step that was run last: rows[0..n), n <= max_logit_rows, each of which came through to
 * the end. They replace those of the step. */
int plan_head(struct plan *plan, const struct step *step, const int32_t *rows, int32_t n, struct error *error) MUST_CHECK;

/* Logits of given rows x [n, d_model] (host, f32), n <= max_logit_rows: x W_U^T without the final norm, bias or soft cap. The result is
 * where plan_logits says, until the next run. */
int plan_unembed(struct plan *plan, const float *x, int32_t n, struct error *error) MUST_CHECK;
/* Logits of given rows x [n, d_model] (host) as if the model ended with them: final norm, unembedding, bias, soft cap. */
int plan_lens(struct plan *plan, const float *x, int32_t n, struct error *error) MUST_CHECK;

/* What attention of a layer makes of given rows z [n, n_head * d_head] (host): z W_O^T without the bias, into out
 * [n, d_model] (host). n <= max_logit_rows. */
int plan_attention_out(struct plan *plan, int32_t layer, const float *z, int32_t n, float *out, struct error *error) MUST_CHECK;

/* The norm in front of the unembedding. */
const struct norm *plan_final_norm(const struct plan *plan);

int32_t plan_max_logit_rows(const struct plan *plan);
struct backend *plan_backend(const struct plan *plan);
const struct model *plan_model(const struct plan *plan);

/* Logits of the last step, f32 [n_logit_rows, vocabulary], in the order of step.logit_row. */
struct rows plan_logits(const struct plan *plan);

/* The list of one segment: 0..n_layer-1, and n_layer for the head. For tests and for backends that capture. */
const struct op *plan_segment(const struct plan *plan, int32_t segment, size_t *count);

/* For runs in buffers of somebody else's (backward.h). The list of a segment as it is where edits and taps are at these sites; the
 * buffer that rows lie in, from which of its columns on, and the width of its rows; and tables of positions [0, n). */
int plan_instrumented(const struct plan *plan, int32_t segment, struct site_sets sets, struct op_list *list,
                      struct error *error) MUST_CHECK;
#define PLAN_BUFFERS 14
struct plan_place {
  int buffer; /* below PLAN_BUFFERS */
  int64_t column, width;
};
struct plan_place plan_place(const struct plan *plan, struct rows rows);
int plan_positions(struct plan *plan, int32_t n, struct error *error) MUST_CHECK;

uint64_t plan_number(const struct plan *plan); /* for step.plan of steps that are run in pieces */
uint64_t plan_new_number(void);                /* the same for whoever has buffers of his own: never given again. Any thread */
size_t plan_bytes(const struct plan *plan); /* of all buffers */

#endif
