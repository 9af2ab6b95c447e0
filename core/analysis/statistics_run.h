/* statistics_run.h: drives a corpus through the engine's background into statistics. */
#ifndef STEERD_CORE_ANALYSIS_STATISTICS_RUN_H
#define STEERD_CORE_ANALYSIS_STATISTICS_RUN_H

#include "core/analysis/corpus.h"
#include "core/analysis/statistics.h"
#include "core/dict/dict.h"
#include "core/engine/engine.h"

struct statistics_run {
  struct engine *engine;
  const struct model *model;
  const struct dict *dict;
  const struct corpus *corpus;
  struct statistics *statistics; /* documents [0, statistics_documents) are in it already */
  int max_sequences;             /* documents in one task */
  int64_t max_rows;              /* positions in one task */

  /* Called after every task, from the thread that runs this: 0 to go on, anything else stops the run (which then
   * returns that value). `document` is the first that is not in yet. */
  int (*progress)(void *context, int64_t document);
  void *context;
  double upkeep_seconds;         /* out: time spent adding, while the engine works on the next task */
};

/* Runs the rest of the corpus; blocks the calling thread, not the engine. 0 when all documents are in, a value of
 * `progress`, or -1 with an error. */
int statistics_run(struct statistics_run *run, struct error *error) MUST_CHECK;

#endif
