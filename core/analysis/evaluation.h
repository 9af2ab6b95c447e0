/* evaluation.h: how well a dictionary does over a text: how it reconstructs (quality.h), and what the model still predicts when the
 * reconstruction takes the place of what it stands for.
 *
 * Every document is run four times: as it is; with x^ in place of the rows of the output point; with x^ + (y - x^), which must
 * predict as the first (it measures rounding, and that splicing does what it says); with 0 in place of them. Cross-entropy is the
 * mean over all predicted tokens of -ln p(next), in nats: positions 0..n-2 of every document, and with `ends` also the
 * model's EOS behind the last. Positions on which the source is not meant to be read (positions.h) are left as they are in every run, and
 * no figure of quality.h has them; what is predicted at them counts, for the changed rows in front of them reach them too.
 * KL is the mean, over the same positions, of the divergence (divergence.h) of a changed run's predictions from those of the model as it is.
 *
 * Of a cross-layer transcoder layers 0 to K are evaluated together: what stands for the output of layer M is what the features of all layers up
 * to M write there, as they fire in the model as it is; and in place of the rows means the outputs of all K + 1 layers at once. */
#ifndef STEERD_CORE_ANALYSIS_EVALUATION_H
#define STEERD_CORE_ANALYSIS_EVALUATION_H

#include "core/analysis/corpus.h"
#include "core/analysis/quality.h"
#include "core/engine/engine.h"

enum evaluation_run { EVALUATE_RAW, EVALUATE_SPLICED, EVALUATE_ZERO, EVALUATE_ERROR, EVALUATION_RUNS };

struct evaluation {
  struct engine *engine;
  const struct model *model;
  const struct dict *const *dicts; /* [n_dicts] one, or the layers of a cross-layer transcoder from 0 on */
  int n_dicts;
  const struct corpus *corpus;
  struct positions positions; /* of a document: those that are counted and changed; its ids are borrowed */
  bool ends;        /* the model has an EOS, and it is predicted */
  int max_documents; /* of a batch, at most 64 */
  int64_t max_rows;  /* positions of a batch; bounds its memory, and, with the vocabulary, what waits in a temporary file */

  /* Called after every batch, from the thread that runs this: 0 to go on, anything else stops the run (which then
   * returns that value). */
  int (*progress)(void *context, int64_t document);
  /* Asked several times a second, from the same thread: true ends the batch under way without adding it, with
   * ERROR_CANCELLED. */
  bool (*stop)(void *context);
  void *context;
};

/* Over documents [0, next_document). Zeros, with a new quality, begin; those of an earlier run, with its quality, go on. */
struct evaluation_sums {
  int64_t next_document, n_predicted;
  double loss[EVALUATION_RUNS], divergence[EVALUATION_RUNS];
};

struct evaluation_result {
  struct quality_figures quality;
  int64_t n_predicted;
  double ce[EVALUATION_RUNS], kl[EVALUATION_RUNS]; /* kl of RAW and ERROR: 0, not counted */
};

/* Blocks the calling thread, not the engine. `qualities`, one for each dictionary, keep how often each feature fired; they and the
 * sums move together, a batch at a time, also where the run fails. The same text gives the same bits in any batches, in any number of runs. 0, a value of
 * `progress`, or -1 with an error. */
int evaluation_run(const struct evaluation *evaluation, struct quality *const *qualities, struct evaluation_sums *sums,
                   struct error *error) MUST_CHECK;

void evaluation_read(const struct evaluation_sums *sums, const struct quality *quality, struct evaluation_result *out);

#endif
